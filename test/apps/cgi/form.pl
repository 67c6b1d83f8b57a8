#!/usr/bin/perl
# A form as thousands of old scripts read it, with CGI.pm: fields, an upload,
# a cookie. Prints them one a line.
use strict;
use warnings;
use CGI;

my $q = CGI->new;
if (my $error = $q->cgi_error) {
    print $q->header(-status => $error, -type => "text/plain"), "$error\n";
    exit;
}
print $q->header(-type => "text/plain", -charset => "utf-8", -cookie => $q->cookie(-name => "seen", -value => "yes"));
for my $name (sort $q->multi_param) {
    my $file = $q->upload($name);
    if ($file) {
        my ($size, $block) = (0);
        binmode $file;
        while (my $n = read $file, $block, 65536) { $size += $n }
        print "$name: file ", scalar($q->param($name)), ", $size bytes\n";
    } else {
        print "$name: ", join(", ", $q->multi_param($name)), "\n";
    }
}
print "cookie seen: ", $q->cookie("seen") // "none", "\n";
