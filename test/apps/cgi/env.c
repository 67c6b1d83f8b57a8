/* What a script is given, as JSON: see env.py. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void quote(const char *s, size_t n)
{
	putchar('"');
	for (; n > 0; s++, n--) {
		unsigned char c = *s;
		if (c < 32 || c > 126 || c == '"' || c == '\\')
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void descriptors(void)
{
	const char *comma = "";
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char target[4096];
		ssize_t n;

		if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(dir))
			continue;
		n = readlinkat(dirfd(dir), entry->d_name, target, sizeof target);
		if (n < 0)
			continue;
		printf("%s\"%s\": ", comma, entry->d_name);
		quote(target, n);
		comma = ", ";
	}
	if (dir)
		closedir(dir);
}

int main(int argc, char **argv)
{
	char cwd[4096];
	int i;

	printf("Content-Type: application/json\n\n{\"argv\": [");
	for (i = 0; i < argc; i++) {
		printf("%s", i ? ", " : "");
		quote(argv[i], strlen(argv[i]));
	}
	printf("], \"env\": {");
	for (i = 0; environ[i]; i++) {
		const char *value = strchr(environ[i], '=');

		if (!value) /* no variable, but no reason to hide it */
			value = environ[i] + strlen(environ[i]) - 1;
		printf("%s", i ? ", " : "");
		quote(environ[i], value - environ[i]);
		printf(": ");
		quote(value + 1, strlen(value + 1));
	}
	printf("}, \"fds\": {");
	descriptors();
	printf("}, \"pid\": %d, \"ppid\": %d, \"pgid\": %d, \"sid\": %d, \"cwd\": ",
	       getpid(), getppid(), getpgrp(), getsid(0));
	if (!getcwd(cwd, sizeof cwd))
		return 1;
	quote(cwd, strlen(cwd));
	printf("}");
	return 0;
}
