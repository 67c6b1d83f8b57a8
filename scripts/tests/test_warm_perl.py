"""Warm CGI for Perl: every script is run cold and warm, and must do the same."""

import array
import ctypes
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import unittest

FILES = pathlib.Path(__file__).resolve().parent.parent / "gatecrew_warm"
CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220, "i686": 120, "armv7l": 120}.get(os.uname().machine)
MARK = "GATECREW_INSTANCE"
COMMON = {"GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "gatecrew", "PATH": "/usr/local/bin:/usr/bin:/bin", MARK: "ABCDEFGH/1"}
REQUEST = {
    **COMMON, MARK: "ABCDEFGH/2", "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_NAME": "localhost", "SERVER_PORT": "80", "REQUEST_METHOD": "GET", "QUERY_STRING": "a=1&b=%20x", "SCRIPT_NAME": "/s",
    "PATH_INFO": "/more", "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost", "HTTP_X_TWO_LINES": "one\ntwo",
}
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: the gateway is one


def communicate(process, stdin, outputs, body):
    """Writes a body and returns what comes from the outputs."""
    data = [b"" for _ in outputs]

    def read(i):
        with open(outputs[i], "rb") as file:
            data[i] = file.read()

    readers = [threading.Thread(target=read, args=(i,)) for i in range(len(outputs))]
    for reader in readers:
        reader.start()
    try:
        with open(stdin, "wb", buffering=0) as file:
            while body:
                body = body[file.write(body):]
    except BrokenPipeError:
        pass
    status = process()
    for reader in readers:
        reader.join()
    return (*data, status)


def run(start, body):
    """Has start make a process with three pipes, and returns what it wrote to
    1 and 2 and how it ended. None when start made none."""
    pipes = [os.pipe() for _ in range(3)]
    theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
    ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
    wait = start(theirs)
    for fd in theirs:
        os.close(fd)
    if wait is None:
        for fd in ours:
            os.close(fd)
        return None
    return communicate(wait, ours[0], ours[1:], body)


def command(script):
    """Returns the interpreter and its word, as the kernel makes them of the
    first line."""
    with open(script, "rb") as file:
        line = file.readline().decode("latin-1").strip()
    return re.split(r"[ \t]+", line[2:].strip(), maxsplit=1)


def cold(script, arguments=(), body=b"", env=REQUEST):
    def start(fds):
        process = subprocess.Popen(
            [script, *arguments], stdin=fds[0], stdout=fds[1], stderr=fds[2], env=env, cwd=os.path.dirname(script), start_new_session=True)
        return process.wait

    return run(start, body)


class Zygote:
    """The process, and the gateway's part."""

    def __init__(self, script, clone=True):
        self.script, self.asked = str(script), 0
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(20)
        # dup2 has it pass through exec, whatever number it has now.
        high = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 100)
        theirs.close()
        self.log = tempfile.TemporaryFile()

        def prepare():
            os.dup2(high, 3)
            os.setpgid(0, 0)

        self.process = subprocess.Popen(
            [*command(self.script), "-I%s" % FILES, "-MGatecrewWarm", self.script], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            env={"LD_BIND_NOW": "1", **COMMON}, cwd=os.path.dirname(self.script), preexec_fn=prepare, pass_fds=[3])
        os.close(high)
        settings = ["start", "spares=0", "preload=stdlib"]
        if clone and CLONE:
            settings.append("clone=%d" % CLONE)
        try:
            self.sock.send("\0".join(settings).encode())
        except BrokenPipeError:
            pass  # it has ended already
        self.greeting = self.hear()

    def hear(self):
        try:
            return self.sock.recv(65536).decode("utf-8", "surrogateescape").split("\0")
        except ConnectionResetError:
            return [""]

    def ask(self, fds, arguments=(), env=REQUEST):
        """Returns the answer to a request."""
        self.asked += 1
        argv = [self.script, *arguments]
        fields = ["run", str(self.asked), str(len(argv)), *argv, *(text for variable in env.items() for text in variable)]
        self.sock.sendmsg(
            ["\0".join(fields).encode("utf-8", "surrogateescape")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        answer = self.hear()
        if answer[1:2] != [str(self.asked)]:
            raise AssertionError("answer: %r" % answer)
        return answer

    def run(self, arguments=(), body=b"", env=REQUEST):
        """Returns what a request's process did, or the reason why there was none."""
        answer = []

        def start(fds):
            answer[:] = self.ask(fds, arguments, env)
            if answer[0] != "started":
                return None
            pid = int(answer[2])

            def wait():
                status = os.waitpid(pid, 0)[1]
                return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)

            return wait

        return run(start, body) or answer[2]

    def logged(self):
        self.log.seek(0)
        return self.log.read().decode()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.log.close()


SAME = {
    "hello": "#!/usr/bin/perl\nprint qq(Content-Type: text/plain\\n\\nHello\\n);\n",
    "environment": """#!/usr/bin/perl
print map { "$_=$ENV{$_}\\n" } sort keys %ENV;
print `env | sort`, "@ARGV|$0|", scalar(@ARGV), "\\n";
""",
    "input": "#!/usr/bin/perl\nbinmode STDIN; local $/; my $all = <STDIN>; print length $all, ' ', unpack('%32C*', $all), ' ', tell(STDIN), ' ', eof(STDIN), qq(\\n);",
    "sysread": "#!/usr/bin/perl\nmy $n = 0; while (sysread STDIN, my $part, 1000) { $n += length $part } print $n;",
    "some input": "#!/usr/bin/perl\nread STDIN, my $part, 10; print $part;",
    "exit": "#!/usr/bin/perl\nprint 'x'; exit 7;",
    "exit beyond a byte": "#!/usr/bin/perl\nexit 256 + 3;",
    "die": "#!/usr/bin/perl\nprint 'partly'; die { a => 1 } if 0; die qq(oh\\n);",
    "die with errno": "#!/usr/bin/perl\nprint 'partly'; $! = 5; die;",
    "die with an object": "#!/usr/bin/perl\npackage E; sub new { bless {}, shift } use overload '\"\"' => sub { 'text of E' }; package main; die E->new;",
    "END": "#!/usr/bin/perl\nEND { print 'one '; $? = 4 } END { print qq(two $? ) } print 'x '; exit 3;",
    "die in END": "#!/usr/bin/perl\nEND { die 'in END' } END { print 'two ' } print 'x ';",
    "blocks": """#!/usr/bin/perl
my @said; BEGIN { push @said, 'BEGIN' } INIT { push @said, 'INIT' } INIT { push @said, 'INIT 2' } CHECK { push @said, 'CHECK' } CHECK { push @said, 'CHECK 2' }
UNITCHECK { push @said, 'UNITCHECK' } END { print "END @said ${^GLOBAL_PHASE}" } print "main @said ${^GLOBAL_PHASE}\\n";
""",
    "killed": "#!/usr/bin/perl\n$| = 1; print 'x'; kill 9, $$; sleep 5;",
    "abort": "#!/usr/bin/perl\nrequire POSIX; POSIX::abort();",
    "TERM": "#!/usr/bin/perl\nprint 'lost'; kill 15, $$; sleep 5;",
    "handlers": "#!/usr/bin/perl\nlocal $SIG{TERM} = sub { print qq(term\\n) }; kill 'TERM', $$; print join ',', map { $SIG{$_} // 'undef' } qw(PIPE CHLD INT FPE ALRM);",
    "handlers of BEGIN": "#!/usr/bin/perl\nBEGIN { $SIG{TERM} = sub { print qq(term\\n) }; $SIG{INT} = 'IGNORE'; $SIG{CHLD} = 'IGNORE'; $SIG{__WARN__} = sub { print qq(warned @_) } }\n"
                         "kill 'TERM', $$; kill 'INT', $$; warn 'x'; system 'true'; print qq($? ), join ',', map { $SIG{$_} // '' } 'INT', 'CHLD';",
    "alarm of BEGIN": "#!/usr/bin/perl\nBEGIN { alarm 1000 } print alarm(0) > 900;",
    "exec": "#!/usr/bin/perl\nprint qq(first\\n); exec 'echo', 'second';",
    "system": "#!/usr/bin/perl\nprint qq(first\\n); print system('echo second; exit 3') >> 8, qq(\\n), `echo third`, $?;",
    "fork": "#!/usr/bin/perl\n$| = 1; print 'a '; my $pid = fork; if (!$pid) { print 'child '; exit 5 } waitpid $pid, 0; print $? >> 8; print ' ', wait;",
    "fork without flush": "#!/usr/bin/perl\nEND { print qq(end\\n) } print qq(a\\n); if (my $pid = fork) { waitpid $pid, 0 } print qq(b\\n);",
    "wait": "#!/usr/bin/perl\nprint wait, ' ', waitpid(-1, 1), ' ', $!+0;",
    "process": "#!/usr/bin/perl\nprint $$ == getpgrp(0), ' ', `echo \\$PPID` == $$, ' ', (split ' ', do { open my $f, '<', '/proc/self/stat'; <$f> })[0] == $$;",
    "pipe to a program": "#!/usr/bin/perl\nopen MAIL, '|-', 'sleep 0.2; cat; echo sent'; print MAIL qq(mail\\n); print qq(Status: 200\\n);",
    "pipe from a program": "#!/usr/bin/perl\nopen my $p, '-|', 'echo one; exit 2'; print <$p>; close $p; print $? >> 8;",
    "destructor": "#!/usr/bin/perl\npackage D; sub new { bless { name => $_[1] } } sub DESTROY { print qq(gone $_[0]{name} ${^GLOBAL_PHASE}\\n) }\n"
                  "package main; our $global = D->new('global'); my $lexical = D->new('lexical'); { my $inner = D->new('inner') } print qq(end\\n);",
    "destructor with a status": "#!/usr/bin/perl\npackage D; sub DESTROY { exit 9 } package main; our $x = bless []; bless $x, 'D'; exit 2;",
    "inherited destructor": "#!/usr/bin/perl\npackage B; sub DESTROY { print qq(gone\\n) } package D; our @ISA = 'B'; package main; our $x = bless [], 'D'; print qq(end\\n);",
    "new class": "#!/usr/bin/perl\nno strict; { package B; sub DESTROY { print qq(gone\\n) } } @{'New::Class::ISA'} = 'B'; $x = bless {}, 'New::Class';",
    "destructor at run time": "#!/usr/bin/perl\nno strict; *{'N::DESTROY'} = sub { print qq(gone\\n) }; $x = bless {}, 'N'; { package N; sub f {} }",
    "destructor in a string": "#!/usr/bin/perl\neval 'package N; sub DESTROY { print qq(gone\\n) } 1' or die; $x = bless {}, 'N';",
    "AUTOLOAD as destructor": "#!/usr/bin/perl\npackage A; sub AUTOLOAD { our $AUTOLOAD; print qq($AUTOLOAD\\n) } package main; $x = bless {}, 'A';",
    "object of BEGIN": "#!/usr/bin/perl\npackage D; sub DESTROY { print qq(gone $_[0][0]\\n) } package main; our $x; BEGIN { $x = bless [1], 'D' } print 'x';",
    "object of BEGIN replaced": "#!/usr/bin/perl\npackage D; sub DESTROY { print qq(gone $_[0][0]\\n) } package main; our ($x, $y); BEGIN { $x = bless [1], 'D' } undef $x; $y = bless [2], 'D';",
    "tied output": "#!/usr/bin/perl\npackage T; sub TIEHANDLE { bless [] } sub PRINT { shift; syswrite STDERR, join '', @_ } sub DESTROY { syswrite STDERR, 'bye' }\n"
                   "package main; tie *STDOUT, 'T'; print 'hello';",
    "unflushed files": "#!/usr/bin/perl\nopen my $f, '>', 'out.txt'; print $f 'data'; our $keep = $f; open O, '>>', 'out.txt'; print O ' more'; print 'x'; END { print 'y' }",
    "temporary files": "#!/usr/bin/perl\nuse File::Temp qw(tempfile tempdir); my ($fh, $name) = tempfile(UNLINK => 1); our $object = File::Temp->new; my $dir = tempdir(CLEANUP => 1);\n"
                       "open my $f, '>', 'names.txt'; print $f qq($name\\n$object\\n$dir\\n);",
    "buffering": "#!/usr/bin/perl\nprint 'a'; syswrite STDOUT, 'b'; $| = 1; print 'c'; syswrite STDOUT, 'd';",
    "unbuffered in BEGIN": "#!/usr/bin/perl\nBEGIN { $| = 1 } print 'a'; syswrite STDOUT, 'b'; print STDERR 'e';",
    "closed output": "#!/usr/bin/perl\nprint 'x'; close STDOUT; print STDERR 'y'; print 'z';",
    "full output": "#!/usr/bin/perl\nopen STDOUT, '>', '/dev/full'; print 'x';",
    "full output, unbuffered": "#!/usr/bin/perl\nopen STDOUT, '>', '/dev/full'; $| = 1; print 'x' or print STDERR qq(failed $!\\n);",
    "DATA": "#!/usr/bin/perl\nprint tell(DATA) > 0, ' ', <DATA>; print eof(DATA);\n__DATA__\nline one\nline two\n",
    "DATA sought": "#!/usr/bin/perl\nmy $at = tell DATA; my @first = <DATA>; seek DATA, $at, 0; print scalar(<DATA>), scalar @first; seek DATA, 0, 0; print scalar <DATA>;\n__END__\nline one\nline two\n",
    "long DATA": "#!/usr/bin/perl\nmy $n = 0; $n += length while <DATA>; print $n;\n__END__\n" + "x" * 70 + "\n" + "0123456789abcdef\n" * 5000,
    "file of BEGIN": "#!/usr/bin/perl\nBEGIN { open F, '<', $0 or die } print scalar(<F>), fileno(F) > 2; seek F, 0, 0; print <F>;\n",
    "warnings": "#!/usr/bin/perl -w\nuse strict; my $x; print qq(a$x\\n); print 1 + 'abc'; my @y = (1) x -1;",
    "warnings while compiling": "#!/usr/bin/perl\nuse warnings; our $once = 1; my $x; my $x; print 'x'; 'useless';",
    "-W": "#!/usr/bin/perl -W\nno warnings; my $x; print qq(a$x\\n);",
    "-X": "#!/usr/bin/perl -X\nuse warnings; my $x; print qq(a$x\\n);",
    "$^W": "#!/usr/bin/perl\nBEGIN { $^W = 1 } my $x; print qq(a$x $^W\\n);",
    "-T": """#!/usr/bin/perl -T
use Scalar::Util 'tainted';
print "${^TAINT} ", join ' ', map { tainted($_) ? 1 : 0 } $0, $ENV{PATH}, $ENV{QUERY_STRING}, $ARGV[0], scalar <STDIN>, $^X, $$, (sort keys %ENV)[0];
eval { system 'true' }; print $@; delete @ENV{qw(IFS CDPATH ENV BASH_ENV)}; $ENV{PATH} = '/bin:/usr/bin'; print system('true'), "\\n";
eval { open my $f, '>', $ENV{QUERY_STRING} }; print $@;
""",
    "-T with a path of BEGIN": "#!/usr/bin/perl -wT\nuse strict; BEGIN { $ENV{PATH} = '/usr/local/bin:/usr/bin:/bin'; delete @ENV{qw(IFS CDPATH ENV BASH_ENV)} }\nprint `echo $$ | wc -l`; print 'x';",
    "-T with modules": "#!/usr/bin/perl -T\nuse lib '.'; use Own; use CGI; use POSIX; print Own::name(), CGI->new->param('a'), qq(@INC);",
    "-t": "#!/usr/bin/perl -t\nprint ${^TAINT}; system 'true'; print `echo x`;",
    "-U": "#!/usr/bin/perl -U\nprint 'x';",
    "-l -0": "#!/usr/bin/perl -l -0\nprint for 'a', 'b'; print ord $/;",
    "-0777": "#!/usr/bin/perl -0777\nmy $x = <STDIN>; print length $x;",
    "-n": "#!/usr/bin/perl -n\nprint qq($.: $_);",
    "-p": "#!/usr/bin/perl -p\ns/a/A/g; BEGIN { our $x = 1 } END { print qq(done $.\\n) }",
    "-a -F": "#!/usr/bin/perl -F: -a\nprint $F[1], scalar @F;",
    "-CS": "#!/usr/bin/perl -CS\nmy $x = <STDIN>; print length $x, chr(0x263a), chr(0xe9);",
    "-I": "#!/usr/bin/perl -I/nowhere/lib\nprint qq($_\\n) for @INC;",
    "env": "#!/usr/bin/env perl\nprint 'x', $0 =~ /script/, $^X;",
    "what is loaded": "#!/usr/bin/perl\nprint qq($_ $INC{$_}\\n) for sort keys %INC; print qq($_\\n) for @INC; print join(',', grep /^[a-z]\\w+$/, sort keys %main::), qq(\\n);",
    "what is loaded with modules": "#!/usr/bin/perl\nuse strict; use warnings; use POSIX; use Data::Dumper;\nprint qq($_ $INC{$_}\\n) for sort keys %INC; print defined &GatecrewWarm::import;",
    "no strict": "#!/usr/bin/perl\n$x = 'y'; $$x = 5; print $y, foo;",
    "caller": "#!/usr/bin/perl\nsub f { my @all; my $i = 0; while (my @c = caller $i++) { push @all, qq(@c[0..3]) } join ';', @all } print f(), __FILE__, __LINE__; warn 'here';",
    "variables": "#!/usr/bin/perl\nprint join '|', map { defined $_ ? $_ : 'undef' } $@, $?, $;, $\", $,, $\\, $/, $_, $., $&, $1, $|, $^W, $^I, $^P, $^D, $^F, $^H, ${^UNICODE}, ${^OPEN}, ${^TAINT}, $^X, $0, wantarray, $^C, $^S;",
    "@_ and $_": "#!/usr/bin/perl\nprint scalar(@_), defined $_ ? 'defined' : 'undef', scalar(@ARGV);",
    "time": "#!/usr/bin/perl\nprint abs($^T - time) < 5, -M $0 < 1;",
    "descriptors": "#!/usr/bin/perl\nopendir my $d, '/proc/self/fd'; print join ' ', grep { -e qq(/proc/self/fd/$_) } sort grep /\\d/, readdir $d; open my $f, '<', $0; print ' ', fileno $f;",
    "inherited descriptors": "#!/usr/bin/perl\nprint `ls /proc/self/fd | wc -l`;",
    "tests of descriptors": "#!/usr/bin/perl\nprint join ' ', map { -p $_ ? 'pipe' : 'no', -t $_ ? 'tty' : 'no', fileno $_ } *STDIN, *STDOUT, *STDERR; print tell(STDIN), tell(STDOUT), -s STDIN;",
    "layers": "#!/usr/bin/perl\nuse open qw(:std :encoding(UTF-8)); my $x = <STDIN>; print length $x, ' ', join(',', PerlIO::get_layers(STDOUT)), chr(0x263a);",
    "binmode in BEGIN": "#!/usr/bin/perl\nBEGIN { binmode STDOUT, ':utf8' } print chr(0x263a), join ',', PerlIO::get_layers(STDOUT);",
    "umask and folder": "#!/usr/bin/perl\nuse Cwd; printf '%o %s', umask, getcwd;",
    "chdir and umask in BEGIN": "#!/usr/bin/perl\nuse Cwd; BEGIN { umask 027; chdir '/tmp' } printf '%o %s', umask, getcwd;",
    "FindBin": "#!/usr/bin/perl\nuse FindBin; use lib $FindBin::Bin; print qq($FindBin::Bin $FindBin::Script $0 @INC);",
    "own module": "#!/usr/bin/perl\nuse lib '.'; use Own; print Own::name(), $INC{'Own.pm'};",
    "required at run time": "#!/usr/bin/perl\nrequire './Own.pm'; print Own::name(), join ',', sort keys %INC;",
    "do": "#!/usr/bin/perl\nprint do './Own.pm'; print Own::name();",
    "module with DATA": "#!/usr/bin/perl\nuse lib '.'; use WithData; print WithData::all(), WithData::all();",
    "CGI": "#!/usr/bin/perl\nuse CGI qw(:standard); print header('text/plain'), map { \"$_=\" . param($_) . qq(\\n) } sort { $a cmp $b } param(); print self_url(), server_software();",
    "CGI object": "#!/usr/bin/perl\nuse strict; use warnings; use CGI; my $q = CGI->new; print $q->header, $q->start_html('x'), $q->path_info, $q->end_html;",
    "CGI::Carp": "#!/usr/bin/perl\nuse CGI::Carp qw(fatalsToBrowser); print qq(Content-Type: text/html\\n\\n); die qq(oh\\n);",
    "threads": "#!/usr/bin/perl\nuse threads; print threads->create(sub { 40 + 2 })->join; print threads->tid;",
    "runtime modules": "#!/usr/bin/perl\nSTDOUT->autoflush(1); print qq(x\\n); require Text::Wrap; print Text::Wrap::wrap('', ' ', 'a b'); my %h = (a => 1); print $+{x} // 'none' if 'a' =~ /(?<y>a)/;",
    "sort and format": "#!/usr/bin/perl\nour @l = (3, 1, 2);\nformat STDOUT =\n@<<< @>>>\n$_, $.\n.\nfor (sort { $a <=> $b } @l) { write }\n",
    "local in BEGIN": "#!/usr/bin/perl\nBEGIN { local $ENV{NEW} = 1; $ENV{SET} = `echo \\$NEW`; delete $ENV{GONE} } print map { \"$_=$ENV{$_}\\n\" } sort keys %ENV; print `echo \\$SET \\$NEW`;",
    "large output": "#!/usr/bin/perl\nprint 'x' x 1000 for 1 .. 1000; print STDERR 'e' x 200_000;",
    "exit code of eval": "#!/usr/bin/perl\neval { die 'x' }; print $@; eval 'die qq(y\\n)'; print $@; eval '1 +'; print $@; exit 1;",
    "utf8 source": "#!/usr/bin/perl\nuse utf8; my $é = 'ü'; print length $é; print \"\\x{263a}\";",
    "no output": "#!/usr/bin/perl\n1;",
    "empty": "#!/usr/bin/perl\n",
    "__END__ at once": "#!/usr/bin/perl\n__END__\nnothing\n",
}

REFUSED = {
    "lock": ("#!/usr/bin/perl\nBEGIN { open $lock, '<', $0; flock $lock, 1 } print 1;", "lock /"),
    "arguments": ("#!/usr/bin/perl\nBEGIN { unshift @ARGV, 'x' } print @ARGV;", "change @ARGV"),
    "syntax error": ("#!/usr/bin/perl\nprint 'x\n", "its compilation ends it, with status 255: Can't find string terminator"),
    "die in BEGIN": ("#!/usr/bin/perl\nBEGIN { die qq(oh\\n) }", "its compilation ends it, with status 255: oh"),
    "exit in BEGIN": ("#!/usr/bin/perl\nBEGIN { print qq(Content-Type: text/plain\\n\\n); exit 3 }", "its compilation ends it, with status 3"),
    "print in BEGIN": ("#!/usr/bin/perl\nBEGIN { print qq(Content-Type: text/plain\\n\\n) } print 'x';", "print"),
    "input in BEGIN": ("#!/usr/bin/perl\nmy $x; BEGIN { $x = <STDIN> } print $x, <STDIN>;", "read the request body"),
    "query in BEGIN": ("#!/usr/bin/perl\nmy $x; BEGIN { $x = $ENV{QUERY_STRING} } print $x;", r"look at \$ENV\{QUERY_STRING\}"),
    "header in BEGIN": ("#!/usr/bin/perl\nmy $x; BEGIN { $x = exists $ENV{HTTP_COOKIE} } print $x;", r"look at \$ENV\{HTTP_COOKIE\}"),
    "copy in BEGIN": ("#!/usr/bin/perl\nmy %x; BEGIN { %x = %ENV } print join ' ', sort keys %x;", "look at the whole of %ENV"),
    "reference in BEGIN": ("#!/usr/bin/perl\nmy $x; BEGIN { $x = \\%ENV } print $x->{QUERY_STRING};", "look at the whole of %ENV"),
    "CGI object in BEGIN": ("#!/usr/bin/perl\nuse CGI; my $q; BEGIN { $q = CGI->new } print $q->param('a');", r"ENV"),
    "stderr in BEGIN": ("#!/usr/bin/perl\nBEGIN { open STDERR, '>>', 'err.txt' } print STDERR 'x'; print 'y';", "replace descriptor 2"),
    "both in BEGIN": ("#!/usr/bin/perl\nBEGIN { open STDERR, '>&', \\*STDOUT } print STDERR 'x'; print 'y';", "replace descriptor 2"),
    "log in BEGIN": ("#!/usr/bin/perl\nBEGIN { open LOG, '>>', 'log.txt' } print LOG 'x'; print 'y';", "leave .*log.txt open"),
    "socket in BEGIN": ("#!/usr/bin/perl\nuse Socket; BEGIN { socket S, PF_INET, SOCK_STREAM, 0 } print 'y';", "leave socket:.* open"),
    "process in BEGIN": ("#!/usr/bin/perl\nBEGIN { $pid = fork // die; if (!$pid) { sleep 1; exec 'true' } } waitpid $pid, 0; print 'y';", "leave a process"),
    "other interpreter": ("#!/bin/sh\necho perl\n", None),
    "-M": ("#!/usr/bin/perl -MList::Util=sum\nprint sum(1, 2, 3);", "Too late for"),  # so it is cold
    "-x": ("#!/usr/bin/perl -x\ngarbage\n#!perl -l\nprint __LINE__;\n__END__\n", None),
    "-c": ("#!/usr/bin/perl -c\nprint 'x';", None),
    "-v": ("#!/usr/bin/perl -v\nprint 'x';", None),
}


def timeless(answer):
    """Leaves out the time of log lines."""
    return tuple(re.sub(rb"^\[[A-Z][^]]*\d\d:\d\d:\d\d[^]]*\]", b"[time]", part, flags=re.M) if isinstance(part, bytes) else part for part in answer)


@unittest.skipIf(os.environ.get("C_EXTENSION") == "require", "the extension is Python's")
class Folder(unittest.TestCase):
    """A folder with a script and what scripts load."""

    def setUp(self):
        self.folder = os.path.realpath(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.write("Own.pm", "package Own; sub name { 'own' } 'value';\n")
        self.write("WithData.pm", "package WithData; sub all { my $at = tell DATA; my @all = <DATA>; seek DATA, $at, 0; @all } 1;\n__DATA__\nsome\ndata\n")

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o755)
        return path

    def left(self):
        """Returns what scripts have left in the folder, and removes it."""
        found = {}
        for name in sorted(os.listdir(self.folder)):
            if name.endswith(".txt"):
                path = os.path.join(self.folder, name)
                with open(path, encoding="utf-8") as file:
                    found[name] = file.read()
                os.unlink(path)
        return found


class Semantics(Folder):
    def compare(self, script, arguments=(), body=b"one a:b:c\ntwo \xc3\xa9a:d\n" * 10, refused=False, clone=True):
        path = self.write("script.cgi", script)
        expected = cold(path, arguments, body)
        files = self.left()
        with Zygote(path, clone) as zygote:
            self.left()
            if refused:
                return zygote.greeting
            self.assertEqual(zygote.greeting[0], "ready", (zygote.greeting, zygote.logged()))
            for _ in range(2):  # nothing may be left of the first for the second
                self.assertEqual(timeless(zygote.run(arguments, body)), timeless(expected))
                left = self.left()
                if "names.txt" in files:
                    for name in left.pop("names.txt").split() + files["names.txt"].split():
                        self.assertFalse(os.path.exists(name), name)
                else:
                    self.assertEqual(left, files)
            self.assertEqual(zygote.logged(), "")

    def test_same(self):
        for name, script in SAME.items():
            with self.subTest(name):
                self.compare(script)

    def test_same_by_two_forks(self):
        """Where clone can't be used."""
        for name in "environment", "input", "END", "fork", "wait", "process", "DATA":
            with self.subTest(name):
                self.compare(SAME[name], clone=False)

    def test_arguments(self):
        """BEGIN blocks would have to see them. What files were opened again says nothing
        of how many there are."""
        path = self.write("script.cgi", "#!/usr/bin/perl\nBEGIN { $first = shift @ARGV } print $first, '|', @ARGV, <DATA>;\n__DATA__\ndata\n")
        with Zygote(path) as zygote:
            self.assertEqual(zygote.run(), cold(path))
            self.assertEqual(zygote.run(["a"]), "it has arguments, which BEGIN blocks have not seen")

    def test_refused(self):
        for name, (script, reason) in REFUSED.items():
            with self.subTest(name):
                greeting = self.compare(script, refused=True)
                if reason is None:
                    self.assertIn(greeting[0], ("refuse", ""), greeting)
                else:
                    self.assertEqual(greeting[0], "refuse", greeting)
                    self.assertRegex(greeting[1], reason)

    def test_random(self):
        """Random numbers differ, also when they were used while compiling."""
        path = self.write("script.cgi", "#!/usr/bin/perl\nBEGIN { rand } print rand;")
        with Zygote(path) as zygote:
            self.assertEqual(len({zygote.run() for _ in range(5)}), 5)

    def test_switches(self):
        path = self.write("script.cgi", "#!/usr/bin/perl -s\nprint $main::debug, @ARGV;")
        with Zygote(path) as zygote:
            self.assertEqual(zygote.run(), cold(path))
            self.assertEqual(zygote.run(["-debug"]), "it has arguments, which BEGIN blocks have not seen")

    def test_other_environment(self):
        """What was looked at while compiling has to be the same for a request."""
        path = self.write("script.cgi", "#!/usr/bin/perl\nmy $x; BEGIN { $x = $ENV{DOCUMENT_ROOT} // 'none' } print $x;")
        with Zygote(path) as zygote:
            self.assertEqual(zygote.run(), (b"none", b"", 0))
            for name in "DOCUMENT_ROOT", "PERL_UNICODE", "LC_ALL":
                self.assertEqual(zygote.run(env={**REQUEST, name: "/x"}), "%s was another when it was compiled" % name)
            self.assertEqual(zygote.run(), (b"none", b"", 0))


class Process(Folder):
    """The processes, as the gateway sees them."""

    def begin(self, zygote, **more):
        """Starts a request that lasts. Returns its process id and our ends."""
        pipes = [os.pipe() for _ in range(3)]
        theirs, ours = [pipes[0][0], pipes[1][1], pipes[2][1]], [pipes[0][1], pipes[1][0], pipes[2][0]]
        answer = zygote.ask(theirs, **more)
        for fd in theirs:
            os.close(fd)
        self.assertEqual(answer[0], "started", answer)
        return int(answer[2]), ours

    def test_child(self):
        """A child is ours, leads a group of its own, dies with us, and shows
        the mark of its request and the script's descriptors alone."""
        path = self.write("script.cgi", "#!/usr/bin/perl\nuse POSIX; $| = 1; print 'begun'; <STDIN>; print 'x';\n__END__\n")
        with Zygote(path) as zygote:
            held = os.listdir("/proc/%d/fd" % zygote.process.pid)
            many = [self.begin(zygote) for _ in range(5)]
            for pid, ours in many:
                self.assertEqual(os.read(ours[1], 5), b"begun")
                with open("/proc/%d/stat" % pid, encoding="ascii") as file:
                    stat = file.read().rpartition(")")[2].split()
                self.assertEqual((int(stat[1]), int(stat[2])), (os.getpid(), pid))
                with open("/proc/%d/environ" % pid, "rb") as file:
                    self.assertIn(b"%s=ABCDEFGH/2" % MARK.encode(), file.read().split(b"\0"))
                self.assertLessEqual(set(os.listdir("/proc/%d/fd" % pid)), {"0", "1", "2", "4"})  # 4 is the script
            self.assertEqual(os.listdir("/proc/%d/fd" % zygote.process.pid), held)
            for pid, ours in many:
                self.assertEqual(communicate(lambda pid=pid: os.waitpid(pid, 0)[1], ours[0], ours[1:], b"\n"), (b"x", b"", 0))

    def test_ends(self):
        """A request goes on when the zygote ends, and the zygote when a request is killed."""
        path = self.write("script.cgi", "#!/usr/bin/perl\n$SIG{TERM} = sub { print 'late'; exit 3 }; <STDIN>; print 'x';")
        with Zygote(path) as zygote:
            pid, ours = self.begin(zygote)
            os.kill(pid, signal.SIGKILL)
            self.assertEqual(communicate(lambda: os.waitpid(pid, 0)[1], ours[0], ours[1:], b""), (b"", b"", signal.SIGKILL))
            pid, ours = self.begin(zygote)
            zygote.sock.close()
            self.assertEqual(zygote.process.wait(20), 0)
            self.assertEqual(communicate(lambda: os.waitpid(pid, 0)[1], ours[0], ours[1:], b"\n"), (b"x", b"", 0))

    def test_term(self):
        """A handler of the script's BEGIN blocks is not the zygote's, nor are its END blocks."""
        path = self.write("script.cgi", "#!/usr/bin/perl\nBEGIN { $SIG{TERM} = sub { print STDERR qq(term\\n) } } END { print STDERR 'end' } print 'x';")
        with Zygote(path) as zygote:
            self.assertEqual(zygote.run(), (b"x", b"end", 0))
            os.kill(zygote.process.pid, signal.SIGTERM)
            self.assertEqual(zygote.process.wait(20), -signal.SIGTERM)
            self.assertEqual(zygote.logged(), "")

    def test_packets(self):
        """What is not a request is left aside; one without descriptors is not run."""
        path = self.write("script.cgi", "#!/usr/bin/perl\nprint 'x';")
        with Zygote(path) as zygote:
            for packet in b"new\0kind", b"x", b"run", b"start\0spares=3":
                zygote.sock.send(packet)
            zygote.sock.send(b"run\0007\0001\0" + path.encode())
            self.assertEqual(zygote.hear(), ["failed", "7", "its descriptors did not come"])
            os.waitpid(-1, 0)
            self.assertEqual(zygote.run(), (b"x", b"", 0))
            env = {**REQUEST, **{"HTTP_X%d" % i: "v" * 1000 for i in range(60)}}
            self.assertEqual(zygote.run(env=env), (b"x", b"", 0))

    def test_watched(self):
        """The gateway is told each file that was read, but for perl's own."""
        path = self.write("script.cgi", "#!/usr/bin/perl\nuse lib '.'; use Own; use POSIX; BEGIN { do './conf.pl' } print 'x';")
        self.write("conf.pl", "1;")
        with Zygote(path) as zygote:
            watched = [field.partition("=")[2] for field in zygote.greeting if field.startswith("watch=")]
            for name in "script.cgi", "Own.pm", "conf.pl":
                self.assertIn(os.path.join(self.folder, name), [os.path.normpath(w) for w in watched])
            self.assertIn(os.path.realpath("/usr/bin/perl"), watched)
            self.assertFalse([w for w in watched if w.endswith("POSIX.pm")])


if __name__ == "__main__":
    unittest.main()
