# Warm CGI for Perl: the process that has a script compiled and forks a child
# for each request. The wire is described in procpool/WARM.md.
#
# Perl loads this file before it compiles the script (-M). The file's body
# looks at what there is before, the INIT block, which perl runs between
# compilation and script, at what the compilation has done; then that block
# serves. It returns in the children alone, into the script.
#
# A script must not see that this was here. So these files load no module, not
# even strict, and leave no name but while the script is compiled. What is run
# by the compilation (use, BEGIN blocks, the modules' bodies) is run once for all
# requests: when that has left behind what processes can't share, or has
# looked at what differs between requests, the script is run cold.

BEGIN {
    $^H |= 0x602;                   # strict refs, subs and vars, without the module
    ${^WARNING_BITS} = "\0" x 24;   # no warnings, whatever -w says
}

my ($kernel, $environment, $compilation, $memory, $ending) = do {
    my ($dir) = __FILE__ =~ m{^(.*)/};
    @INC = grep { ref || $_ ne $dir } @INC;
    delete $INC{'GatecrewWarm.pm'};
    local $SIG{__WARN__} = sub { } if $^W;    # for -W
    map {
        my $file = "$dir/$_.pl";
        my %functions = do $file or die "gatecrew: $file: ", $@ || $! || 'not made for this kind of processor', "\n";
        delete $INC{$file};
        \%functions;
    } qw(warm_kernel warm_environment warm_compilation warm_memory warm_exit);
};

# Descriptors are kept where they are in nobody's way: what a script opens
# gets the numbers that it gets cold.
my $gateway = 53;
$kernel->{move}->(3, $gateway);

my $parent  = getppid;
my $zygote  = $$;
my $taint   = ${^TAINT} ? substr $^X, 0, 0 : '';    # what is joined to it is tainted under -T
my $running = 0;                                    # in a child that has begun the script
my $long    = length pack 'L!', 0;                  # bytes of a pointer

# One packet, with the descriptors that come with it, and recvmsg's argument.
my ($packet, $control) = ('', '');
vec($packet,  65535, 8) = 0;
vec($control, 63,    8) = 0;
my $pieces  = pack 'P L!', $packet, 65536;
my $full    = pack 'L!', 64;                        # bytes of $control
my $message = pack 'L! L x![L!] P L! P a* i x![L!]', 0, 0, $pieces, 1, $control, $full, 0;

# receive waits for a packet and returns its length, 0 at the end of the stream.
my $receive = sub {
    for (;;) {
        substr $message, 5 * $long, $long, $full;
        my $length = syscall $kernel->{recvmsg}, $gateway, $message, 0x40000000;    # MSG_CMSG_CLOEXEC
        return $length if $length >= 0 || $! != 4;                                  # EINTR
    }
};

my $say    = sub { $kernel->{send}->($gateway, join "\0", @_) };
my $refuse = sub { $say->('refuse', @_); $kernel->{exit}->(0) };

my (%setting, $mark_address, $mark_length);

# begin is what there is to do before the script is compiled.
my $begin = sub {
    my $length = $receive->();
    $kernel->{exit}->(0) if $length <= 0;
    for (split /\0/, substr $packet, 0, $length) { $setting{$1} = $2 if /^(\w+)=(.*)/s }
    # The memory in which the kernel shows the environment that the process
    # was started with.
    my $read = $compilation->{read};
    if ($read->('/proc/self/environ') =~ /(?:^|\0)GATECREW_INSTANCE=([^\0]*)/) {
        my $offset = $-[1];
        $mark_length = length $1;
        my @stat = split ' ', $read->('/proc/self/stat') =~ /.*\)(.*)/s ? $1 : '';
        $mark_address = $stat[47] + $offset if $stat[47];    # env_start
    }
    delete $ENV{LD_BIND_NOW};    # was for this process
    my $reason = $compilation->{begin}->($kernel, $gateway);
    $refuse->($reason) if $reason;
    $environment->{begin}->();
};

# What the compilation has left for the children.
my (@read, @written, @handled, @files, @watch, $cleared, $said, $alarm, $layer, $thread, $errno);

# compiled is what there is to do after that.
my $compiled = sub {
    $errno = 0 + $!;    # the exit status of a die depends on it
    my $seen = $environment->{end}->();
    my $state = $compilation->{end}->();
    $refuse->($state->{reason}) if $state->{reason};
    $refuse->('its BEGIN blocks or its modules look at the whole of %ENV') if $seen->{walked};
    # What each request has of its own. (HTTP_PROXY isn't passed on.)
    my ($request) = grep { !defined $seen->{read}{$_} }
        grep { /^(?:(?:HTTP|REMOTE|REQUEST|SERVER|CONTENT|PATH)_.*|QUERY_STRING|AUTH_TYPE|HTTPS)$/ && $_ ne 'HTTP_PROXY' } sort keys %{$seen->{read}};
    $refuse->("its BEGIN blocks or its modules look at \$ENV{$request}") if defined $request;
    @read    = %{$seen->{read}};
    @written = %{$seen->{written}};
    $cleared = $seen->{cleared};
    @files   = @{$state->{files}};
    ($said, $alarm) = @$state{qw(said alarm)};
    $refuse->('its BEGIN blocks or its modules change @ARGV') if @ARGV;
    # Each child enters a Landlock domain of its own, inside of this process's, so that
    # it can look at no other. It has to forbid something: to make block devices.
    if ($setting{layer}) {
        my $rules = pack 'V2', 1 << 11, 0;
        my $fd = syscall 444, $rules, 8, 0;    # landlock_create_ruleset, on all machines that warm_kernel.pl knows
        $refuse->("it can't be kept apart from others (Landlock): $!") if $fd < 0;
        $layer = $gateway + 1;
        $kernel->{move}->($fd, $layer);
    }
    # Handlers that BEGIN blocks have installed are for the script alone.
    @handled = grep { defined $SIG{$_} && $SIG{$_} !~ /^(?:|DEFAULT|IGNORE)$/ } keys %SIG;
    # Before 5.16 perl remembers its own process id.
    $thread  = $kernel->{thread}->() if $setting{clone} && $] >= 5.016;
    %ENV = ();
    $ending->{never} = $ending->{prepare}->($kernel, @{$state->{core}});

    @watch = map { my $kind = $_; map {"$kind=$_"} @{$state->{$kind}} } qw(watch shadow name);
};

# ready is what there is to do last, when nothing of it is left to be freed.
my $ready = sub {
    local $SIG{__WARN__} = sub { } if $^W;    # for -W
    $memory->{settle}->($kernel->{madvise}, $compilation->{read});
    $ending->{count}->() if !$ending->{never};
    $say->('ready', @watch);
};

# fork_twice forks a child that becomes the gateway's. It returns undef, and
# the reason in $!, when that fails.
my $fork_twice = sub {
    my $between = fork;
    return $between if !defined $between;
    if (!$between) {
        $between = $$;
        my $pid = fork;
        if (defined $pid && !$pid) {
            select undef, undef, undef, 0.001 while getppid == $between;
            return 0;
        }
        $kernel->{exit}->(defined $pid ? 0 : $!);
    }
    waitpid $between, 0;
    return $between if !$?;
    $! = $? >> 8;
    return;
};

my ($close, $dup3, $openat, $lseek, $exit) = @$kernel{qw(close dup3 openat lseek exit_group)};
my ($length, $pid, $id, $n, $in, $out, $err, $name, @fields);

# serve returns in children. Each page that is written to is copied once in each
# child and once here; so this is one function, and calls few.
my $serve = sub {
    local @SIG{@handled};
    for (;;) {
        $length = $receive->();
        syscall $exit, 0 if $length <= 0;
        next if $length < 4 || substr($packet, 0, 4) ne "run\0";
        # A control message: its length, SOL_SOCKET, SCM_RIGHTS, three descriptors.
        ($n, $in, $out, $err) = unpack "L! x8 i3", $control;
        ($in, $out, $err) = () if substr($message, 5 * $long, $long) eq "\0" x $long || $n != $long + 20;
        $pid = $thread
            ? syscall $kernel->{clone}, 0x01208000 | 17, 0, 0,    # CLONE_PARENT, CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID, SIGCHLD
                $kernel->{tls_last} ? ($thread, 0) : (0, $thread)
            : $fork_twice->();
        last if defined $pid && $pid == 0;
        if (!defined $pid || $pid < 0) {
            (undef, $id) = split /\0/, substr($packet, 0, $length), 3;
            $say->('failed', $id, "no process: $!");
        }
        if (defined $in) { syscall $close, $_ for $in, $out, $err }
        substr $packet, 0, $length, "\0" x $length;    # not for the next child to see
    }
    syscall $kernel->{prctl}, 1, 9, 0, 0, 0;                      # PR_SET_PDEATHSIG, SIGKILL
    (undef, $id, $n, @fields) = split /\0/, substr($packet, 0, $length), -1;
    my $failure = getppid != $parent ? 'its parent has gone' : !defined $in ? 'its descriptors did not come' : '';
    if (!$failure) {
        $failure = "its standard descriptors: $!"
            if syscall($dup3, $in, 0, 0) < 0 || syscall($dup3, $out, 1, 0) < 0 || syscall($dup3, $err, 2, 0) < 0;
        syscall $close, $in;
        syscall $close, $out;
        syscall $close, $err;
        if (defined $layer) {
            $failure = "landlock_restrict_self: $!" if syscall(446, $layer, 0) < 0;
            syscall $close, $layer;
        }
        # __DATA__ and what else is open would share its position with all others.
        for (@files) {
            $in = syscall $openat, -100, $_->{path}, 0x80000;     # AT_FDCWD, O_RDONLY|O_CLOEXEC
            syscall $lseek, $in, $_->{position}, 0;
            $failure ||= "it can't open a file again: $!" if syscall($dup3, $in, $_->{fd}, 0x80000) < 0;
            syscall $close, $in;
        }
    }
    shift @fields;                                                # the script itself
    $failure ||= 'it has arguments, which BEGIN blocks have not seen' if $n > 1;
    for ($n = 0; $n < @fields; $n += 2) { $ENV{$fields[$n]} = $fields[$n + 1] }
    for ($n = 0; $n < @read; $n += 2) {
        $name = $ENV{$read[$n]};
        next if defined $read[$n + 1] ? defined $name && $read[$n + 1] eq $name : !defined $name;
        $failure ||= "$read[$n] was another when it was compiled";
        last;
    }
    if ($failure) {
        $say->('failed', $id, $failure);
        syscall $exit, 0;
    }
    $name = $ENV{GATECREW_INSTANCE};
    if ($mark_address && defined $name && length $name == $mark_length) {
        my $from = pack 'P L!', $name, $mark_length;
        my $to   = pack 'L! L!', $mark_address, $mark_length;
        syscall $kernel->{process_vm_writev}, $$, $from, 1, $to, 1, 0;
    }
    if (${^TAINT}) {
        $_ .= $taint for @ARGV, values %ENV;
    }
    %ENV = () if $cleared;
    for ($n = 0; $n < @written; $n += 2) {
        if (defined $written[$n + 1]) { $ENV{$written[$n]} = $written[$n + 1] }
        else                          { delete $ENV{$written[$n]} }
    }
    $^T = time;
    srand;
    alarm $alarm if $alarm;
    setpgrp 0, 0;
    $name = "started\0$id\0$$";
    syscall $exit, 1 if syscall($kernel->{write}, $gateway, $name, length $name) != length $name;    # the gateway has given it up
    syscall $close, $gateway;
    syscall $kernel->{write}, 2, $said, length $said if length $said;
    $running = 1;
    ($!, $?) = ($errno, 0);
};

# Perl frees a block that is done, and with it what nobody else holds: in a
# child, all that is here. So it is held.
my @held;
INIT {
    my $here = \@held;
    @held = ($compiled, $ready, $serve, sub { $here });
    $compiled->();
    $ready->();
    $serve->();
}

# The last of all END blocks, since it is the first.
END {
    if ($running && @held) { $ending->{end}->($?) if !$ending->{never} }
    elsif ($$ == $zygote) { $refuse->($compilation->{failed}->($?)) }
}

$begin->();
($!, $?) = (0, 0);
1;
