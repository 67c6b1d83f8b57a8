<?php
// What PHP was given, as JSON: the variables, the body's size and digest.
// The front controller, too: /index.php/any/path and /any/path with an index.
header('Content-Type: application/json');
$body = file_get_contents('php://input');
echo json_encode([
    'server' => $_SERVER,
    'get' => $_GET,
    'post' => $_POST,
    'cookie' => $_COOKIE,
    'files' => $_FILES,
    'script' => __FILE__,
    'pid' => getmypid(),
    'body' => ['bytes' => strlen($body), 'sha256' => hash('sha256', $body)],
], JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_SLASHES);
