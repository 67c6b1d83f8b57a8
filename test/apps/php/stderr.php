<?php
// ?n= lines to PHP's log, which FPM sends as FCGI_STDERR.
for ($i = 0; $i < (int) ($_GET['n'] ?? 1); $i++) {
    error_log("line $i of the application");
}
header('Content-Type: text/plain');
echo "noisy\n";
