/* Copies standard input to standard output as it comes, until its end. */
#include <string.h>
#include <unistd.h>

static int put(const char *data, ssize_t n)
{
	while (n > 0) {
		ssize_t done = write(1, data, n);
		if (done < 0)
			return -1;
		data += done;
		n -= done;
	}
	return 0;
}

int main(void)
{
	static const char head[] = "Content-Type: application/octet-stream\r\n\r\n";
	static char block[1 << 16];
	ssize_t n;

	if (put(head, strlen(head)) < 0)
		return 1;
	while ((n = read(0, block, sizeof block)) > 0)
		if (put(block, n) < 0)
			return 1;
	return n < 0;
}
