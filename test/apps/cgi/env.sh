#!/bin/sh
# What a script is given, as JSON: see env.py. awk does the quoting.
# Only descriptors 0-9 are shown: the shell keeps the script itself at 10 or
# above. They are noted before readlink runs, which brings a pipe with it.
open=
for number in 0 1 2 3 4 5 6 7 8 9; do
	if [ -L /proc/$$/fd/$number ]; then open="$open $number"; fi
done
fds=
for number in $open; do
	fds="$fds $number $(readlink /proc/$$/fd/"$number")"
done
read -r _ _ _ ppid pgid sid _ </proc/$$/stat

printf 'Content-Type: application/json\n\n'
LC_ALL=C exec awk -v fds="$fds" -v ids="$$ $ppid $pgid $sid" -v lc_all="${LC_ALL-unset}" '
	function quote(s,   i, out) {
		for (i = 1; i <= length(s); i++)
			out = out escaped[substr(s, i, 1)]
		return "\"" out "\""
	}
	BEGIN {
		for (i = 1; i < 256; i++) {
			c = sprintf("%c", i)
			escaped[c] = (i < 32 || i > 126 || c == "\"" || c == "\\") ? sprintf("\\u%04x", i) : c
		}
		# ARGV[1] is the working directory, then come the arguments of the script.
		printf "{\"argv\": ["
		for (i = 2; i < ARGC; i++)
			printf "%s%s", (i > 2) ? ", " : "", quote(ARGV[i])
		# awk alone runs with LC_ALL=C; what is shown is what the script got.
		delete ENVIRON["LC_ALL"]
		if (lc_all != "unset")
			ENVIRON["LC_ALL"] = lc_all
		printf "], \"env\": {"
		for (name in ENVIRON)
			printf "%s%s: %s", n++ ? ", " : "", quote(name), quote(ENVIRON[name])
		count = split(fds, fd, " ")
		printf "}, \"fds\": {"
		for (i = 1; i < count; i += 2)
			printf "%s%s: %s", (i > 1) ? ", " : "", quote(fd[i]), quote(fd[i + 1])
		split(ids, id, " ")
		printf "}, \"pid\": %d, \"ppid\": %d, \"pgid\": %d, \"sid\": %d, \"cwd\": %s}", id[1], id[2], id[3], id[4], quote(ARGV[1])
	}' "$PWD" "$0" "$@"
