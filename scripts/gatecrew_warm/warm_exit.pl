# The end of a child. Perl ends a program by looking at every value there is for
# objects to destroy. In a forked child that costs more than all the rest: each
# page that is touched has to be copied. Where nothing is to be destroyed it can
# be left out, and nobody sees a difference. Returns the functions prepare, count
# and end.
#
# An object holds a reference to the symbol table of its class. So there are no
# new objects of a class as long as that has as many references as before. This
# is looked at for every class that has a destructor, or can get one by another @ISA.
# A class that is new, or gets a destructor now, shows as a new name in a symbol
# table. Whatever else matters leaves the end to perl: child processes (a pipe to
# sendmail is waited for), modules with C code that is not perl's own, layers with
# something to say at the end.

BEGIN { $^H |= 0x602; ${^WARNING_BITS} = "\0" x 24 }    # see GatecrewWarm.pm

my $long = length pack 'L!', 0;
my ($kernel, @classes, @tables, @watched);
my ($where, $counters, $sizes, $counts, @names);

# All of this is read where perl has it in memory: the usual ways to ask write there.
# A value begins with a pointer to its body and its number of references; the body
# of a hash with two pointers, the number of its keys and that of its places.
my $counted = sub { join '', unpack '(P4)*', $counters };
my $sized = sub {
    my $all = '';
    for (my $at = 0; $at < length $where; $at += 64 * $long) {    # in parts, which take the same memory
        $all .= join '', unpack '(P' . 4 * $long . ')*', join '', unpack "(P$long)*", substr $where, $at, 64 * $long;
    }
    return $all;
};
my $look = sub {
    $where    = pack 'L!*', map { $_ + 0 } @{$_[0]};
    $counters = pack 'L!*', map { $_ + $long } @{$_[1]};
    ($sizes, $counts) = ($sized->(), $counted->());
};

# told returns what a symbol table says of classes: how many packages there
# are in it, and whether it is one that has a destructor or parents.
my $told = sub {
    my ($table) = @_;
    my $packages = grep { substr($_, -2) eq '::' } keys %$table;
    my $code = grep { my $name = $table->{$_}; ref \$name ne 'GLOB' || defined *$name{CODE} } grep { exists $table->{$_} } qw(DESTROY AUTOLOAD);
    return join ' ', $packages, $code, exists $table->{ISA} ? 1 : 0;
};

# packages calls a function with the name and the symbol table of each.
my $packages;
$packages = sub {
    my ($visit, $name) = @_;
    BEGIN { $^H &= ~2 }    # no strict refs
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
        my $fd = 54;
        $kernel->{copy}->(fileno $write, $fd);    # $write is closed before objects are destroyed
        BEGIN { $^H &= ~2 }
        my $say = sub { $kernel->{send}->($fd, 'x') };
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
        my %probe = map { $_ => 1 } 1 .. 5;
        my $probe = \%probe;
        $look->([$probe], [$probe]);
        my $before = $sizes;
        $probe{6} = 1;
        return 'the memory of this perl looks otherwise' if unpack('L', $counted->()) != 2 || $sized->() eq $before;
        for my $object (@DynaLoader::dl_shared_objects) {
            return "$object is loaded" if !grep { index($object, "$_/") == 0 } @core;
        }
        for my $file (keys %INC) {
            return "$file is loaded" if $file =~ m{^(?:threads|forks|PerlIO/(?!(?:encoding|scalar)\.pm$).*)\.pm$};
        }
        BEGIN { $^H &= ~2 }
        my %harmless;
        $packages->(sub {
            my ($name) = @_;
            $harmless{0 + \&{"${name}::DESTROY"}} = 1 if defined &{"${name}::DESTROY"} && $empty->($name);
        }, 'main');
        $packages->(sub {
            my ($name, $table) = @_;
            push @tables, $table;
            my $destructor = UNIVERSAL::can($name, 'DESTROY');
            return if $destructor && $harmless{0 + $destructor};
            my $destroys = $destructor || UNIVERSAL::can($name, 'AUTOLOAD');
            push @classes, $name if $destroys;
            push @watched, $table if $destroys || grep { exists $table->{$_} } qw(DESTROY AUTOLOAD ISA);
        }, 'main');
        return 'there are objects already' if $alive->(@classes);
        return;
    },

    # count remembers how things are. It is called last.
    count => sub {
        @names = map { $told->($_) } @tables;
        $look->(\@tables, \@watched);
    },

    # end ends the process with a status, if that may be done at once.
    end => sub {
        my ($status) = @_;
        local ($!, $?);
        return if $counted->() ne $counts;
        my $now = $sized->();
        if ($now ne $sizes) {
            my $size = 4 * $long;
            for my $i (0 .. $#tables) {
                return if substr($now, $i * $size, $size) ne substr($sizes, $i * $size, $size) && $told->($tables[$i]) ne $names[$i];
            }
        }
        return if tied *STDOUT || waitpid(-1, 1) != -1;    # WNOHANG
        local $SIG{__WARN__} = sub { } if $^W;
        %ENV = () if ${^TAINT};    # an exec under -T dies of a tainted PATH
        exec {''} '';              # fails, but flushes all handles first
        $kernel->{exit}->($status & 255);
    },
);
