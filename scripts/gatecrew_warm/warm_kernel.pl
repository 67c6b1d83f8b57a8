# The system calls that perl has no function for, by their numbers on this
# perl's own kind of processor, which may not be the gateway's. Returns the numbers
# and functions, by name, or an empty list where the numbers are unknown.

BEGIN { $^H |= 0x602; ${^WARNING_BITS} = "\0" x 24 }    # see GatecrewWarm.pm

my @names = qw(write recvmsg clone prctl dup3 close exit_group memfd_create process_vm_writev openat lseek madvise);
my %numbers = (    # by the machine and the class in the head of an ELF file
    '62 2'  => [1,  47,  56,  157, 292, 3,  231, 319, 311, 257, 8,  28],    # x86-64
    '183 2' => [64, 212, 220, 167, 24,  57, 94,  279, 271, 56,  62, 233],    # AArch64
    '243 2' => [64, 212, 220, 167, 24,  57, 94,  279, 271, 56,  62, 233],    # RISC-V
    '3 1'   => [4,  372, 120, 172, 330, 6,  252, 356, 348, 295, 19, 219],    # i386
    '40 1'  => [4,  297, 120, 172, 358, 6,  248, 385, 377, 322, 19, 220],    # ARM
);
my $head = '';
if (open my $exe, '<:raw', '/proc/self/exe') { sysread $exe, $head, 20 }
return if length $head < 20;
my ($class, $machine) = unpack 'x4 C x13 v', $head;
my $known = $numbers{"$machine $class"} or return;
my %number;
@number{@names} = @$known;

return (
    %number,
    tls_last => $machine == 62 ? 1 : 0,    # clone's last two arguments

    # send writes bytes to a descriptor; it returns false when that fails.
    send => sub {
        my $fd = $_[0];
        my ($bytes) = $_[1] =~ /(.*)/s;    # a copy, since syscall refuses constants; untainted, for -T
        return syscall($number{write}, $fd, $bytes, length $bytes) == length $bytes;
    },

    # move makes one descriptor another and closes it. The new one is closed by
    # exec unless it is a standard one. It returns false when that fails.
    move => sub {
        my ($from, $to) = @_;
        my $done = syscall($number{dup3}, $from, $to, $to > 2 ? 0x80000 : 0) >= 0;    # O_CLOEXEC
        syscall $number{close}, $from;
        return $done;
    },

    # copy does so and leaves the first open.
    copy => sub { syscall($number{dup3}, $_[0], $_[1], $_[1] > 2 ? 0x80000 : 0) >= 0 },

    # file returns the descriptor of an empty file without a name.
    file => sub { my $name = "compilation\0"; my $fd = syscall $number{memfd_create}, $name, 1; $fd < 0 ? undef : $fd },

    # thread returns the address where the C library keeps the number of this
    # thread, which a child has to be told, or nothing where that isn't known.
    thread => sub {
        my $where = pack 'L!', 0;
        return if syscall($number{prctl}, 40, $where, 0, 0, 0) != 0;                  # PR_GET_TID_ADDRESS
        my $address = unpack 'L!', $where;
        return $address && unpack('i', unpack 'P4', $where) == $$ ? $address : undef;
    },

    # exit ends the process at once: no END block, no destructor, no flush.
    exit => sub { syscall $number{exit_group}, $_[0] },
);
