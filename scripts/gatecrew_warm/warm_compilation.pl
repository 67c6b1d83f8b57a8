# What the compilation of a script leaves behind, and what it would do for each
# request when run cold. Returns the functions begin, end, failed, read.

BEGIN { $^H |= 0x602; ${^WARNING_BITS} = "\0" x 24 }    # see GatecrewWarm.pm

my ($kernel, %own, %made, $input, $folder);
my ($output, $errors) = (51, 52);    # the true descriptors 1 and 2 meanwhile
my @search = grep { !ref } @INC;
my @core   = grep { -e "$_/strict.pm" || -e "$_/Config.pm" } @search;

my $read = sub {
    my ($path) = @_;
    my $text = '';
    open my $file, '<:raw', $path or return $text;
    1 while sysread $file, $text, 65536, length $text;
    return $text;
};

# identity names the open file behind a descriptor.
my $identity = sub { join ' ', (stat "/proc/self/fd/$_[0]")[0, 1] };

# descriptors returns the numbers that are open, but for those that are ours.
my $descriptors = sub {
    opendir my $list, '/proc/self/fd' or return;
    my @all = grep { /^\d+$/ && $_ > 2 && !$own{$_} } readdir $list;
    closedir $list;    # which is one of them
    return sort { $a <=> $b } grep { defined readlink "/proc/self/fd/$_" } @all;
};

# said gives the descriptors 1 and 2 back, and returns what was written to them.
my $said = sub {
    # A fork flushes all handles, those that are read from as well: their
    # position is that of their descriptor then.
    my $pid = fork;
    $kernel->{exit}->(0) if defined $pid && !$pid;
    waitpid $pid, 0;
    my @text = map { $read->("/proc/self/fd/$_") } 1, 2;
    $kernel->{move}->($output, 1);
    $kernel->{move}->($errors, 2);
    return @text;
};

# absolute returns a path as it was meant by the compilation.
my $absolute = sub { $_[0] =~ m{^/} ? $_[0] : "$folder/$_[0]" };

# kept returns what there is to know of a file that was left open and has to be
# opened again in each child, or why that can't be done.
my $kept = sub {
    my ($fd) = @_;
    my $name = readlink "/proc/self/fd/$fd";
    my $mode = (stat "/proc/self/fd/$fd")[2] & 0170000;
    return undef if $mode == 0020000;    # a device: nothing to share but itself
    my $info = $read->("/proc/self/fdinfo/$fd");
    my ($flags) = $info =~ /^flags:\s*(\d+)/m;
    my ($position) = $info =~ /^pos:\s*(\d+)/m;
    return "its BEGIN blocks or its modules lock $name" if $info =~ /^lock:/m;
    return "its BEGIN blocks or its modules leave $name open" if $mode != 0100000 || !defined $flags || oct($flags) & 3;
    return { path => "/proc/self/fd/$fd\0", position => 0 + $position, fd => 0 + $fd, name => $name };    # numbers, for syscall
};

# shadows returns folders, and names that a module in one of them would need to
# be loaded before one that is: the first words of the modules' names, but for
# those that the folders have.
my $shadows = sub {
    my (@folders, %names);
    for my $folder (grep { !ref } @INC) {
        last if grep { $_ eq $folder } @core;
        push @folders, $absolute->($folder);
    }
    for (keys %INC) { $names{$1} = 1 if m{^(\w+)[./]} }
    for my $folder (@folders) {
        opendir my $list, $folder or next;
        for (readdir $list) { delete $names{$1} if /^(\w+)/ }
    }
    return \@folders, [sort keys %names];
};

return (
    read => $read,

    # begin is called before the compilation. It returns why that can't be, or nothing.
    begin => sub {
        ($kernel, my $gateway) = @_;
        $folder = readlink '/proc/self/cwd';
        return 'it can not read /proc' if !defined $folder || !opendir(my $list, '/proc/self/fd') || $read->('/proc/self/maps') eq '';
        return 'it runs in the debugger' if $^P;
        my ($line) = $read->($0) =~ /^([^\n]*)/;
        # Perl would run what it names instead.
        return "its first line does not name perl: $line" if $line =~ /^#!/ && $line !~ /perl|indir/;

        # One byte of input: whether it still is there says whether somebody has read.
        pipe $input, my $write or return "no pipe: $!";
        syswrite $write, "\n";
        close $write;
        $kernel->{copy}->(fileno $input, 0);
        $kernel->{copy}->(1, $output);
        $kernel->{copy}->(2, $errors);
        for my $fd (1, 2) {
            my $file = $kernel->{file}->();
            return "no file for what it writes: $!" if !defined $file;
            $kernel->{move}->($file, $fd);
        }
        $made{$_} = $identity->($_) for 0 .. 2;
        $own{$_} = 1 for $gateway, fileno $input, $output, $errors;
        return;
    },

    # end is called after it, and returns what there is to know.
    #   reason    why the script has to be run cold; when it is there nothing else is
    #   said      what was written to descriptor 2
    #   alarm     the seconds until SIGALRM, 0 for none
    #   files     the files that were left open: path (with its final NUL), position, fd
    #   watch     the files that were read, but for what comes with perl
    #   core      the folders of what comes with perl
    #   shadow    the folders where modules are looked for before that
    #   name      what may not appear there: in its place something else is loaded
    end => sub {
        my $alarm = alarm 0;
        my ($moved) = grep { $identity->($_) ne $made{$_} } 0 .. 2;
        my $taken = !sysread $input, my $byte, 2;
        close $input;
        my $children = waitpid(-1, 1) != -1;
        my ($out, $err) = $said->();
        my @files;
        my $reason =
              defined $moved          ? "its BEGIN blocks or its modules replace descriptor $moved"
            : $taken                  ? 'its BEGIN blocks or its modules read the request body'
            : length $out             ? 'its BEGIN blocks or its modules print'
            : $children               ? 'its BEGIN blocks or its modules leave a process running'
            : do { opendir my $tasks, '/proc/self/task'; grep({ /\d/ } readdir $tasks) > 1 }
                                      ? 'its BEGIN blocks or its modules start threads'
            : undef;
        return { reason => $reason } if defined $reason;
        for my $fd ($descriptors->()) {
            my $file = $kept->($fd);
            return { reason => $file } if defined $file && !ref $file;
            push @files, $file if $file;
        }
        my %watch = map { $absolute->($_) => 1 } $0, readlink '/proc/self/exe', map { $_->{name} } @files;
        $watch{$_} = 1 for $read->('/proc/self/maps') =~ m{ (/\S*/libperl\.so\S*)$}mg;
        for my $file (grep { defined && !ref } values %INC) {
            my $path = $absolute->($file);
            $watch{$path} = 1 if !grep { index($path, "$_/") == 0 } @core;
        }
        my ($folders, $names) = $shadows->();
        return {
            said => $err, alarm => $alarm, files => \@files,
            watch => [sort keys %watch], core => \@core, shadow => $folders, name => $names,
        };
    },

    # failed is called in place of end when the compilation ended the process,
    # with the exit status. It returns the reason.
    failed => sub {
        my ($status) = @_;
        my ($out, $err) = $said->();
        my ($line) = $err =~ /^([^\n]*)/;
        return $line ne '' ? "its compilation ends it, with status $status: $line" : "its compilation ends it, with status $status";
    },
);
