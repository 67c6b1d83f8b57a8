/* What was posted, see form.py. */
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
	long left = atol(getenv("CONTENT_LENGTH"));
	int c;

	printf("Content-Type: text/plain\n\n");
	printf("%s %s %ld\n", getenv("REQUEST_METHOD"), getenv("CONTENT_TYPE"), left);
	for (; left > 0 && (c = getchar()) != EOF; left--)
		putchar(c == '&' ? '\n' : c);
	putchar('\n');
	return left != 0;
}
