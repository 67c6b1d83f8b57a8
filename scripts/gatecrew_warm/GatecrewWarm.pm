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

my ($kernel, $environment, $compilation, $ending) = do {
    my ($dir) = __FILE__ =~ m{^(.*)/};
    @INC = grep { ref || $_ ne $dir } @INC;
    delete $INC{'GatecrewWarm.pm'};
    map {
        my $file = "$dir/$_.pl";
        my %functions = do $file or die "gatecrew: $file: ", $@ || $! || 'not made for this kind of processor', "\n";
        delete $INC{$file};
        \%functions;
    } qw(warm_kernel warm_environment warm_compilation warm_exit);
};

# Descriptors are kept where they are in nobody's way: what a script opens
# gets the numbers that it gets cold.
my $gateway = 53;
$kernel->{move}->(3, $gateway);

my $parent  = getppid;
my $taint   = ${^TAINT} ? substr $^X, 0, 0 : '';    # what is joined to it is tainted under -T
my $zygote  = $$;
my $running = 0;                                    # in a child that has begun the script
my ($mark, $mark_address, %setting);

my $say    = sub { $kernel->{write}->($gateway, join "\0", @_) };
my $refuse = sub { $say->('refuse', @_); $kernel->{exit}->(0) };

# begin is what there is to do before the script is compiled.
my $begin = sub {
    my ($packet) = $kernel->{receive}->($gateway) or $kernel->{exit}->(0);
    for (split /\0/, $packet) { $setting{$1} = $2 if /^(\w+)=(.*)/s }
    my $read = $compilation->{read};

    # The memory in which the kernel shows the environment that the process
    # was started with.
    if ($read->('/proc/self/environ') =~ /(?:^|\0)GATECREW_INSTANCE=([^\0]*)/) {
        my $offset = $-[1];
        $mark = $1;
        my @stat = split ' ', $read->('/proc/self/stat') =~ /.*\)(.*)/s ? $1 : '';
        $mark_address = $stat[47] + $offset if $stat[47];    # env_start
    }
    my $reason = $compilation->{begin}->($kernel, $gateway);
    $refuse->($reason) if $reason;
    $environment->{begin}->();
};

# What the script's compilation has left for its children.
my ($read, $written, $cleared, $said, $left_alarm, $files, $switches);

# compiled is what there is to do after that.
my $compiled = sub {
    my $seen = $environment->{end}->();
    my $state = $compilation->{end}->();
    $refuse->($state->{reason}) if $state->{reason};
    $refuse->('its BEGIN blocks or its modules look at the whole of %ENV') if $seen->{walked};
    ($read, $written, $cleared) = @$seen{qw(read written cleared)};
    for (sort keys %$read) {
        $refuse->("its BEGIN blocks or its modules look at \$ENV{$_}")
            if /^(?:HTTP_.*|REMOTE_.*|REQUEST_.*|CONTENT_LENGTH|CONTENT_TYPE|QUERY_STRING|PATH_INFO|PATH_TRANSLATED|AUTH_TYPE)$/;
    }
    ($said, $left_alarm, $files, $switches) = @$state{qw(said alarm files switches)};
    $ending->{never} = $ending->{prepare}->($kernel, @{$state->{core}});
    $say->('ready', map {"watch=$_"} @{$state->{watch}});
};

# enter makes this process, just forked, the request's. It returns when the
# script may begin.
my $enter = sub {
    my ($packet, @descriptors) = @_;
    my (undef, $id, $n, @fields) = split /\0/, $packet, -1;
    my $fail = sub { $say->('failed', $id, @_); $kernel->{exit}->(0) };
    my ($script, @arguments) = splice @fields, 0, $n;
    my %request;
    for (@fields) {
        my $equals = index $_, '=';
        $request{substr $_, 0, $equals} = substr $_, $equals + 1 if $equals > 0;
    }
    for (keys %$read) {
        my ($then, $now) = ($read->{$_}, $request{$_});
        next if defined $then ? defined $now && $then eq $now : !defined $now;
        $fail->("$_ was another when it was compiled");
    }
    $fail->('it has arguments, and takes switches (-s)') if $switches && @arguments;
    setpgrp 0, 0;
    $kernel->{die_with_parent}->();
    $kernel->{exit}->(0) if getppid != $parent;
    $fail->('its descriptors did not come') if @descriptors != 3;
    $kernel->{move}->($descriptors[$_], $_) or $fail->("its descriptor $_: $!") for 0 .. 2;
    for (@$files) {
        my $reason = $compilation->{reopen}->($_);
        $fail->($reason) if $reason;
    }
    my $name = $request{GATECREW_INSTANCE};
    $kernel->{poke}->($mark_address, $name) if $mark_address && defined $name && length $name == length $mark;

    %ENV = ();
    if (!$cleared) { $ENV{$_} = $request{$_} . $taint for keys %request }
    for (keys %$written) {
        if (defined $written->{$_}) { $ENV{$_} = $written->{$_} }
        else                        { delete $ENV{$_} }
    }
    @ARGV = map { $_ . $taint } @arguments;
    $^T = time;
    srand;
    alarm $left_alarm if $left_alarm;
    $say->('started', $id, $$);
    $kernel->{close}->($gateway);
    $kernel->{write}->(2, $said) if length $said;
    $running = 1;
};

# fork forks a child of the gateway. It returns undef, and the reason in $!,
# when that fails.
my $fork = sub {
    my $pid;
    # Before 5.16 perl remembers its own number.
    return $pid if $] >= 5.016 && $setting{clone} && defined($pid = $kernel->{fork}->());
    my $between = fork;
    return $between if !defined $between;
    if (!$between) {
        $pid = fork;
        return 0 if defined $pid && !$pid;
        $kernel->{exit}->(defined $pid ? 0 : $!);
    }
    waitpid $between, 0;
    return $between if !$?;
    $! = $? >> 8;
    return;
};

# serve returns in children.
my $serve = sub {
    # Handlers that BEGIN blocks have installed are for the script alone.
    my @handled = grep { defined $SIG{$_} && $SIG{$_} ne '' && $SIG{$_} ne 'DEFAULT' } keys %SIG;
    local @SIG{@handled};
    while (my ($packet, @descriptors) = $kernel->{receive}->($gateway)) {
        next if $packet !~ /^run\0([^\0]*)/;
        my $id = $1;
        my $pid = $fork->();
        if (defined $pid && !$pid) {
            $enter->($packet, @descriptors);
            return;
        }
        $say->('failed', $id, "no process: $!") if !defined $pid;
        $kernel->{close}->($_) for @descriptors;
    }
    $kernel->{exit}->(0);
};

INIT { $compiled->(); $serve->() }

# The last of all END blocks, since it is the first.
END {
    if ($running) { $ending->{end}->($?) if !$ending->{never} }
    elsif ($$ == $zygote) { $refuse->($compilation->{failed}->($?)) }
}

$begin->();
1;
