<?php
// ?n= pieces of ?chunk= bytes, ?delay= seconds before each, flushed each time.
header('Content-Type: text/plain');
$piece = str_repeat('s', (int) ($_GET['chunk'] ?? 10));
for ($i = 0; $i < (int) ($_GET['n'] ?? 10); $i++) {
    usleep((int) (1e6 * (float) ($_GET['delay'] ?? 0)));
    echo $piece;
    flush();
}
