#!/usr/bin/perl
# Copies standard input to standard output as it comes, until its end.
use strict;
use warnings;
$| = 1;
binmode STDIN;
binmode STDOUT;
print "Content-Type: application/octet-stream\r\n\r\n";
while (sysread STDIN, my $block, 65536) {
    print $block;
}
