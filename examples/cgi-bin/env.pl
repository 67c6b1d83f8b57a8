#!/usr/bin/env perl
# Everything the gateway tells a script stands in its environment.
use strict;
use warnings;

sub escape {
    my ($text) = @_;
    my %entity = ("&" => "&amp;", "<" => "&lt;", ">" => "&gt;", '"' => "&quot;");
    $text =~ s/([&<>"])/$entity{$1}/g;
    return $text;
}

print <<"END";
Content-Type: text/html; charset=utf-8

<!DOCTYPE html>
<html lang="en"><head><title>env.pl</title><link rel="stylesheet" href="/style.css"></head>
<body>
<a class="back" href="/">&larr; all examples</a>
<h1>The environment of a script</h1>
<p class="lead">Perl $^V, process $$. Change the path or the query in the address bar and watch
<code>PATH_INFO</code> and <code>QUERY_STRING</code>.</p>
<table>
END
print "<tr><th>", escape($_), "</th><td>", escape($ENV{$_}), "</td></tr>\n" for sort keys %ENV;
print "</table>\n</body></html>\n";
