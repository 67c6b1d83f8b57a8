<?php
// The variables part of phpinfo(), as administrators look at it.
phpinfo(INFO_VARIABLES | INFO_GENERAL);
