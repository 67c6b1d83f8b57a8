<?php
// Answers with ?code=, and with the exit status ?exit=, which says nothing to HTTP.
http_response_code((int) ($_GET['code'] ?? 200));
header('Content-Type: text/plain');
echo "status\n";
exit((int) ($_GET['exit'] ?? 0));
