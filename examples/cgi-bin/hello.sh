#!/bin/sh
# A CGI script needs nothing but standard output.
echo 'Content-Type: text/html'
echo
cat <<END
<!DOCTYPE html>
<html lang="en"><head><title>hello.sh</title><link rel="stylesheet" href="/style.css"></head>
<body>
<a class="back" href="/">&larr; all examples</a>
<h1>Hello from the shell</h1>
<p class="lead">It is $(date). You asked with $REQUEST_METHOD from $REMOTE_ADDR.</p>
<pre>\$ uname -srm
$(uname -srm)</pre>
</body></html>
END
