# The system calls that perl has no function for, by their numbers on this
# perl's own kind of processor, which may not be the gateway's. Returns a
# function for each, by its name, or an empty list where the numbers are unknown.

BEGIN { $^H |= 0x602; ${^WARNING_BITS} = "\0" x 24 }    # see GatecrewWarm.pm

my @names = qw(write recvmsg clone prctl dup3 close exit_group memfd_create process_vm_writev);
my %numbers = (    # by the machine and the class in the head of an ELF file
    '62 2'  => [1,  47,  56,  157, 292, 3,  231, 319, 311],    # x86-64
    '183 2' => [64, 212, 220, 167, 24,  57, 94,  279, 271],    # AArch64
    '243 2' => [64, 212, 220, 167, 24,  57, 94,  279, 271],    # RISC-V
    '3 1'   => [4,  372, 120, 172, 330, 6,  252, 356, 348],    # i386
    '40 1'  => [4,  297, 120, 172, 358, 6,  248, 385, 377],    # ARM
);
my $head = '';
if (open my $exe, '<:raw', '/proc/self/exe') { sysread $exe, $head, 20 }
return if length $head < 20;
my ($class, $machine) = unpack 'x4 C x13 v', $head;
my $known = $numbers{"$machine $class"} or return;
my %number;
@number{@names} = @$known;

my $long    = length pack 'L!', 0;
my $buffer  = '';                      # of one packet, as long as one may be
my $control = '';                      # and what comes with it
vec($buffer,  65535, 8) = 0;
vec($control, 63,    8) = 0;

return (
    # write sends or writes bytes to a descriptor; it returns false when that fails.
    write => sub { syscall($number{write}, $_[0], $_[1], length $_[1]) == length $_[1] },

    # receive returns the next packet of a socket and the descriptors that came
    # with it, and nothing at its end.
    receive => sub {
        my ($fd) = @_;
        my $iov = pack 'P L!', $buffer, 65536;
        my ($message, $n);
        do {
            $message = pack "L! L x![L!] P L! P L! i x![L!]", 0, 0, $iov, 1, $control, 64, 0;
            $n = syscall $number{recvmsg}, $fd, $message, 0x40000000;    # MSG_CMSG_CLOEXEC
        } while ($n < 0 && $! == 4);                                     # EINTR
        return if $n <= 0;
        my @descriptors;
        my $length = unpack 'L!', substr $message, 5 * $long, $long;     # of what came in $control
        if ($length > $long + 8) {
            my ($size, $level, $type) = unpack 'L! i i', $control;
            @descriptors = unpack 'i*', substr $control, $long + 8, $size - $long - 8
                if $level == 1 && $type == 1;                            # SOL_SOCKET, SCM_RIGHTS
        }
        return substr($buffer, 0, $n), @descriptors;
    },

    # fork forks a child of this process's parent (CLONE_PARENT), as the C
    # library's fork does: the address where that keeps its thread's number is
    # told to the kernel. It returns undef where that isn't known.
    fork => sub {
        my $where = pack 'L!', 0;
        return if syscall($number{prctl}, 40, $where, 0, 0, 0) != 0;     # PR_GET_TID_ADDRESS
        my $address = unpack 'L!', $where;
        return if !$address || unpack('i', unpack 'P4', $where) != $$;
        my $flags = 0x00008000 | 0x01000000 | 0x00200000 | 17;          # CLONE_PARENT, CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID, SIGCHLD
        my $pid = syscall $number{clone}, $flags, 0, 0, $machine == 62 ? ($address, 0) : (0, $address);
        return $pid < 0 ? undef : $pid;
    },

    # die_with_parent has the kernel kill this process when its parent ends.
    die_with_parent => sub { syscall $number{prctl}, 1, 9, 0, 0, 0 },

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

    close => sub { syscall $number{close}, $_[0] },

    # file returns the descriptor of an empty file without a name.
    file => sub { my $name = "compilation\0"; my $fd = syscall $number{memfd_create}, $name, 1; $fd < 0 ? undef : $fd },

    # poke writes bytes into this process's own memory.
    poke => sub {
        my ($address, $bytes) = @_;
        my $from = pack 'P L!', $bytes, length $bytes;
        my $to   = pack 'L! L!', $address, length $bytes;
        syscall $number{process_vm_writev}, $$ + 0, $from, 1, $to, 1, 0;
    },

    # exit ends the process at once: no END block, no destructor, no flush.
    exit => sub { syscall $number{exit_group}, $_[0] },
);
