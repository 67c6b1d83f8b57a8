// Package scripts carries the Python worker, and the zygotes of CGI scripts,
// inside the binary.
//
// The tree is the installable package of the worker itself, one level deep, and
// what interpreters of CGI scripts load to be kept warm:
//
//	gatecrew_worker/__main__.py   what the gateway runs: PYTHON D/gatecrew_worker APP ...
//	gatecrew_worker/*.py          its modules, which import each other as gatecrew_worker._NAME
//	gatecrew_worker/py.typed      PEP 561
//	gatecrew_worker/_speed.*      the optional C extension, where it was built, and its source
//	gatecrew_warm/zygote.py       PYTHON D/gatecrew_warm/zygote.py SCRIPT, see procpool/WARM.md
//	gatecrew_warm/_warm_*.py      its modules
//	gatecrew_warm/GatecrewWarm.pm PERL -ID/gatecrew_warm -MGatecrewWarm SCRIPT
//	gatecrew_warm/warm_*.pl       its parts
//
// It is extracted to a private directory D, with these names; nothing else
// needs to be there. Tests and byte code are not part of it.
package scripts

import "embed"

// Worker holds the files above. The patterns name files rather than the
// directory, because embedding a directory would leave out every name that
// starts with an underscore.
//
//go:embed gatecrew_worker/*.py gatecrew_worker/py.typed gatecrew_worker/_speed.*
var Worker embed.FS

// Warm holds the files of gatecrew_warm.
//
//go:embed gatecrew_warm/*.p[lmy]
var Warm embed.FS
