# The end of a child. Perl ends a program by looking at every value there is for
# objects to destroy. In a forked child that costs more than all the rest: each
# page that is touched has to be copied. Where nothing is to be destroyed it can
# be left out, and nobody sees a difference. Returns the functions prepare and end.
#
# An object holds a reference to the symbol table of its class. So there are no
# new objects of a class as long as the number of references to that is
# the same. It is compared for every class that has a destructor, or may yet inherit
# one. Whatever else could matter leaves the end to perl: code that was compiled
# meanwhile, child processes (a pipe to sendmail is waited for), modules with C code
# that is not perl's own, layers with something to say at the end.

BEGIN { $^H |= 0x602; ${^WARNING_BITS} = "\0" x 24 }    # see GatecrewWarm.pm

my ($kernel, $counters, $counts, $modules, $evals);
my $long = length pack 'L!', 0;

# counted returns the numbers of references to the things at these addresses,
# as perl has them in memory. The usual ways to ask write there.
my $counted = sub { join '', unpack '(P4)*', $counters };
my $at = sub { pack 'L!*', map { $_ + $long } @_ };

# evaluated returns how often a string was compiled.
my $evaluated = sub { my $name = eval '__FILE__'; $name =~ /(\d+)/ ? $1 : 0 };

# packages calls a function with the name and the symbol table of each.
my $packages;
$packages = sub {
    my ($visit, $name) = @_;
    no strict 'refs';
    my $table = \%{"${name}::"};
    $visit->($name, $table);
    for my $key (keys %$table) {
        next if substr($key, -2) ne '::' || $key eq 'main::';
        my $inner = substr $key, 0, -2;
        $packages->($visit, $name eq 'main' ? $inner : "${name}::$inner");
    }
};

# empty says whether the destructor of a package does nothing.
my $empty = sub {
    my ($package) = @_;
    return 1 if $package eq 'Regexp';
    (my $file = "$package.pm") =~ s{::}{/}g;
    return 0 if !$INC{$file} || ref $INC{$file};
    open my $source, '<:raw', $INC{$file} or return 0;
    my $text = '';
    sysread $source, $text, 4 << 20;
    my @all = $text =~ /\bDESTROY\b/g;
    my @subs = $text =~ /\bsub\s+DESTROY\b/g;
    return @subs == 1 && $text =~ /\bsub\s+DESTROY\s*\{\s*;?\s*\}/;
};

# alive says whether an object that will be destroyed is there already. A
# process of its own finds out: in it the destructors say so, and it ends.
my $alive = sub {
    my (@classes) = @_;
    return 0 if !@classes;
    pipe my $read, my $write or return 1;
    my $pid = fork;
    return 1 if !defined $pid;
    if (!$pid) {
        no strict 'refs';
        my $fd = fileno $write;
        my $say = sub { $kernel->{write}->($fd, 'x') };
        local $SIG{__WARN__} = sub { };
        *{"${_}::DESTROY"} = $say for @classes;
        $^C = 1;    # perl's -c: no END blocks
        exit 0;
    }
    close $write;
    my $found = sysread $read, my $said, 1;
    waitpid $pid, 0;
    return $found != 0 || $? != 0;
};

return (
    # prepare looks at what was compiled. Its arguments are the functions of
    # the kernel and the folders of the modules that come with perl. It returns why
    # every end is left to perl, or nothing.
    prepare => sub {
        ($kernel, my @core) = @_;
        my %probe;
        my $reference = \%probe;
        $counters = $at->($reference + 0);
        return 'the memory of this perl looks otherwise' if unpack('L', $counted->()) != 2;
        for my $object (@DynaLoader::dl_shared_objects) {
            return "$object is loaded" if !grep { index($object, "$_/") == 0 } @core;
        }
        for my $file (keys %INC) {
            return "$file is loaded" if $file =~ m{^(?:threads|forks|PerlIO/(?!(?:encoding|scalar)\.pm$).*)\.pm$};
        }
        no strict 'refs';
        my (%harmless, @watched, @classes);
        $packages->(sub {
            my ($name) = @_;
            $harmless{0 + \&{"${name}::DESTROY"}} = 1 if defined &{"${name}::DESTROY"} && $empty->($name);
        }, 'main');
        $packages->(sub {
            my ($name, $table) = @_;
            my $destructor = UNIVERSAL::can($name, 'DESTROY');
            return if $destructor && $harmless{0 + $destructor};
            my $destroys = $destructor || UNIVERSAL::can($name, 'AUTOLOAD');
            push @classes, $name if $destroys;
            push @watched, $table if $destroys || grep { exists $table->{$_} } qw(DESTROY AUTOLOAD ISA);
        }, 'main');
        return 'there are objects already' if $alive->(@classes);
        $counters = $at->(map { $_ + 0 } @watched);
        @watched = ();
        $counts  = $counted->();
        $modules = keys %INC;
        $evals   = $evaluated->();
        return;
    },

    # end ends the process with a status, if that may be done at once.
    end => sub {
        my ($status) = @_;
        return if $counted->() ne $counts || keys %INC != $modules || $evaluated->() != $evals + 1;
        return if tied *STDOUT || waitpid(-1, 1) != -1;    # WNOHANG
        local $SIG{__WARN__} = sub { } if $^W;
        %ENV = () if ${^TAINT};    # an exec under -T dies of a tainted PATH
        exec {''} '';              # fails, but flushes all handles first
        $kernel->{exit}->($status & 255);
    },
);
