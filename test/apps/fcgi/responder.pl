#!/usr/bin/perl
# A FastCGI responder on libfcgi, the reference implementation: it shares no
# code with the gateway. Usage: responder.pl SOCKET [PROCESSES]; SOCKET is a path
# or :PORT. Answers with its environment and the body's size as JSON; /die kills
# the process, /sleep waits for QUERY_STRING seconds, /raw answers with the
# body, head and all.
use strict;
use warnings;
use FCGI ();
use JSON::PP ();

my ($address, $processes) = @ARGV;
my $socket = FCGI::OpenSocket($address, 128) or die "responder.pl: can't listen on $address\n";
# The parent serves as well; a child that dies stays dead.
for (2 .. $processes // 1) {
    my $child = fork // die "responder.pl: fork: $!\n";
    last if $child == 0;
}
my %env;
my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%env, $socket);
while ($request->Accept >= 0) {
    my $path = $env{PATH_INFO} || $env{SCRIPT_NAME} || "";
    kill KILL => $$ if $path eq "/die";
    select undef, undef, undef, $env{QUERY_STRING} || 1 if $path eq "/sleep";
    my ($bytes, $block, $body) = (0);
    while ((my $n = read STDIN, $block, 65536) > 0) {
        $bytes += $n;
        $body .= $block if $path eq "/raw";
    }
    print STDERR "served $path\n";
    if ($path eq "/raw") {
        print $body // "";
        next;
    }
    print "Content-Type: application/json\r\n\r\n",
        JSON::PP->new->ascii->canonical->encode({ env => { map { $_ => "$env{$_}" } keys %env }, bytes => $bytes, pid => $$ + 0 });
}
