<?php
// ?n= pieces of ?chunk= bytes, ?delay= seconds before each, flushed each time;
// ?length= declares a length, true or not.
header('Content-Type: text/plain');
if (isset($_GET['length'])) {
    header('Content-Length: ' . (int) $_GET['length']);
}
$piece = str_repeat('s', (int) ($_GET['chunk'] ?? 10));
for ($i = 0; $i < (int) ($_GET['n'] ?? 10); $i++) {
    usleep((int) (1e6 * (float) ($_GET['delay'] ?? 0)));
    echo $piece;
    flush();
}
