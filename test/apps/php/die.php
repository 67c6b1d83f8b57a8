<?php
// Kills its own process: before the head, or with ?sent= bytes of body out.
header('Content-Type: text/plain');
if (isset($_GET['length'])) {
    header('Content-Length: ' . (int) $_GET['length']);
}
if (isset($_GET['sent'])) {
    echo str_repeat('m', (int) $_GET['sent']);
    flush();
    usleep(200000); // what was not sent before the end says nothing about the gateway
}
posix_kill(getmypid(), 9);
sleep(60); // the signal comes first
