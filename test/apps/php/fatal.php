<?php
// A fatal error: 500 from PHP itself, the message on FCGI_STDERR.
throw new RuntimeException('thrown by the application');
