# What the compilation reads of %ENV, and what it writes there. Returns the
# functions begin and end.
#
# Between the two, the name %ENV means a tied hash that keeps account and has
# the true one do the work. The true hash is not tied itself: perl would lose
# what connects it with the environment of processes.

BEGIN { $^H |= 0x602; ${^WARNING_BITS} = "\0" x 24 }    # see GatecrewWarm.pm

# Variables that perl and the C library look at by themselves when they start.
my @start = qw(
    PERL5LIB PERLLIB PERL5OPT PERL5DB PERL5DB_THREADED PERLIO PERLIO_DEBUG PERL_UNICODE PERL_ENCODING PERL_SIGNALS
    PERL_HASH_SEED PERL_PERTURB_KEYS PERL_HASH_SEED_DEBUG PERL_RAND_SEED PERL_INTERNAL_RAND_SEED PERL_USE_UNSAFE_INC
    PERL_BADLANG PERL_SKIP_LOCALE_INIT PERL_DESTRUCT_LEVEL PERL_MEM_LOG
    LANG LANGUAGE LC_ALL LC_CTYPE LC_COLLATE LC_NUMERIC LC_TIME LC_MONETARY LC_MESSAGES LOCPATH LD_LIBRARY_PATH LD_PRELOAD
    MALLOC_ARENA_MAX GLIBC_TUNABLES
);

my $true = \%ENV;
my (%read, %written, $cleared, $walked, $account);

{
    package GatecrewWarm::Environment;
    sub TIEHASH { bless [], $_[0] }
    sub FETCH {
        $read{$_[1]} = $true->{$_[1]} if !exists $read{$_[1]} && !exists $written{$_[1]} && !$cleared;
        return $true->{$_[1]};
    }
    sub EXISTS { FETCH(@_); exists $true->{$_[1]} }
    sub STORE { $written{$_[1]} = 1; $true->{$_[1]} = $_[2] }
    sub DELETE { FETCH(@_) if defined wantarray; $written{$_[1]} = 1; delete $true->{$_[1]} }
    sub CLEAR { $cleared = 1; %written = (); %$true = () }
    sub FIRSTKEY { $walked = 1; my $reset = keys %$true; each %$true }
    sub NEXTKEY { each %$true }
    sub SCALAR { $walked = 1; scalar %$true }
}

return (
    begin => sub {
        $read{$_} = $true->{$_} for @start;
        tie my %account, 'GatecrewWarm::Environment';
        $account = \%account;
        *ENV = $account;
    },

    # end gives %ENV back. It returns
    #   read     value by name, undef for a variable that was not there
    #   written  value by name, undef for one that was deleted
    #   cleared  whether all that was there before was deleted
    #   walked   whether the code has looked at the whole, or has kept a reference to it
    end => sub {
        *ENV = $true;
        $walked = 1 if Internals::SvREFCNT(%$account) > 1;
        untie %$account;
        my %values = map { $_ => $true->{$_} } keys %written;
        delete $main::{'GatecrewWarm::'};    # no name is left
        return { read => \%read, written => \%values, cleared => $cleared, walked => $walked };
    },
);
