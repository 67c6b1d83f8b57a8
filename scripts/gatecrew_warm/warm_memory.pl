# Where children find free memory. What the compilation has freed lies scattered
# between what is in use; whatever a child puts there costs the copy of a
# page, since it shares all pages with the others. So the holes are filled
# here, and what is free then lies together. Returns the function settle.

BEGIN { $^H |= 0x602; ${^WARNING_BITS} = "\0" x 24 }    # see GatecrewWarm.pm

my @filling;    # what fills the holes; never looked at again
my $long = length pack 'L!', 0;

# Perl takes values from lists of its own: their heads from one, their bodies
# from one for each kind. Each of these makes a value that needs nothing else.
my @kinds = (
    sub { \my $undefined },
    sub { my $string = 'x'; undef $string; \$string },
    sub { bless \my $magical, 'Internals' },
    sub { \(my $number = 1.5) },
    sub { [] },
    sub { +{} },
);

# spread returns how far apart the heads or the bodies of values lie.
my $spread = sub {
    my @where = sort { $a <=> $b } map { $_[0] ? unpack 'L!', unpack "P$long", pack 'L!', $_ : $_ } map { $_ + 0 } @{$_[1]};
    return $where[-1] - $where[0];
};

return (
    settle => sub {
        my ($madvise, $read) = @_;
        # First the memory of the C library, from the large pieces to the
        # small. A piece that lies above this one has filled no hole.
        my $top = do { $#{$filling[0] = []} = 12_000; $filling[0] };
        my $array = sub { unpack 'L!', unpack "P$long", pack 'L!', $_[0] + $long + 8 };
        my $end = $array->($top);
        for my $length (map({ 128 * $_ } reverse 2 .. 32), reverse 4 .. 255) {
            for (1 .. 1000) {
                my $piece = [];
                $#$piece = $length - 1;
                push @filling, $piece;
                last if $array->($piece) > $end;
            }
        }
        for (1 .. 5000) {
            my $string = 'x' x 10;
            push @filling, \$string;
            last if unpack('L!', pack 'P', $string) > $end;
        }
        for my $kind (@kinds) {
            for (1 .. 100) {
                my @values = map { $kind->() } 1 .. 500;
                push @filling, @values;
                last if $spread->(0, \@values) < 512_000 && ($kind == $kinds[0] || $spread->(1, \@values) < 512_000);
            }
        }
        my @room;
        for my $kind (@kinds) { push @room, $kind->() for 1 .. 600 }
        pop @room while @room;
        # Freeing a large piece has the C library join small ones that lie side by side.
        $#{my $large = []} = 12_000;
        # A fork has less to do for large pages. The kernel takes them apart in
        # a child where that writes. Before Linux 6.1 this does nothing.
        my ($begin, $beyond) = map { hex } $read->('/proc/self/maps') =~ /^(\w+)-(\w+) .*\[heap\]$/m or return;
        for ($begin = ($begin | 0x1fffff) + 1; $begin + 0x200000 <= $beyond; $begin += 0x200000) {
            last if syscall($madvise, $begin, 0x200000, 25) != 0;    # MADV_COLLAPSE
        }
        return;
    },
);
