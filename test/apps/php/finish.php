<?php
// Ends the answer and works on for ?s= seconds; TEST_DIR/finished tells when it is done.
header('Content-Type: text/plain');
echo "finished\n";
fastcgi_finish_request();
usleep((int) (1e6 * (float) ($_GET['s'] ?? 1)));
file_put_contents(getenv('TEST_DIR') . '/finished', "done\n");
