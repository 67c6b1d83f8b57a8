#!/usr/bin/perl
# What a script is given, as JSON: see env.py.
use strict;
use warnings;
use Cwd ();
use JSON::PP ();

my %fds;
opendir(my $dir, "/proc/self/fd") or die "proc: $!";
for my $number (grep { /^\d+$/ && $_ != fileno($dir) } readdir $dir) {
    my $target = readlink "/proc/self/fd/$number";
    $fds{$number} = $target if defined $target;
}
closedir $dir;

open(my $stat, "<", "/proc/self/stat") or die "proc: $!";
my ($ppid, $pgid, $sid) = <$stat> =~ /\) \S (\d+) (\d+) (\d+)/;

print "Content-Type: application/json\n\n";
print JSON::PP->new->ascii->canonical->encode({
    argv => [$0, @ARGV],
    cwd  => Cwd::getcwd(),
    env  => {%ENV},
    fds  => \%fds,
    pid  => $$ + 0, ppid => $ppid + 0, pgid => $pgid + 0, sid => $sid + 0,
});
