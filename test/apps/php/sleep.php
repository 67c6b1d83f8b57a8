<?php
// Sleeps ?s= seconds; writes its pid to TEST_DIR/?name= first, if asked.
if (preg_match('/^[A-Za-z0-9_-]+$/D', $_GET['name'] ?? '')) {
    file_put_contents(getenv('TEST_DIR') . '/' . $_GET['name'], getmypid() . "\n");
}
usleep((int) (1e6 * (float) ($_GET['s'] ?? 1)));
header('Content-Type: text/plain');
echo "slept\n";
