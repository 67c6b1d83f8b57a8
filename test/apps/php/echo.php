<?php
// The request body back, block by block.
header('Content-Type: application/octet-stream');
$in = fopen('php://input', 'rb');
while (!feof($in)) {
    echo fread($in, 65536);
}
