/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend: writes a page and reads it again. backend REGION
 *
 *	cc backend.c -o backend $(pkg-config --cflags --libs shmuring)
 */
#include <shmuring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE SHMURING_DEFAULT_BLOCK_SIZE

static void must(int rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, shmuring_strerror(rc));
	exit(1);
}

/* One request from free slot to result. */
static int ask(struct shmuring_backend *b, const struct shmuring_request *request, void *to, size_t len)
{
	struct shmuring_wait wait = { shmuring_deadline_ms(10000), NULL, 0 };
	struct shmuring_completion done;

	must(shmuring_call(b, request, &wait, to, len, &done), "call");
	return done.error;
}

int main(int argc, char **argv)
{
	struct shmuring_rel rel = shmuring_rel_of(1663, 5, 16384, 0);
	struct shmuring_wait wait = { shmuring_deadline_ms(10000), NULL, 0 };
	static char image[PAGE], page[PAGE];
	struct shmuring_region *region;
	struct shmuring_backend *b;
	struct shmuring_leftover leftover;
	struct shmuring_request request;
	int error;

	if (argc != 2)
		return 2;
	must(shmuring_check_version(SHMURING_VERSION_NUMBER, SHMURING_ABI_VERSION), "library");
	must(shmuring_region_attach(argv[1], &region, NULL), argv[1]);
	must(shmuring_backend_attach(region, 0, 8, &b, NULL), "attach"); /* slots 0 to 7 are ours */
	while (shmuring_next_leftover(b, &wait, &leftover) == 1)
		printf("an earlier owner left slot %u\n", leftover.slot);

	memset(image, 'x', PAGE);
	shmuring_prep_create(&request, rel, 0);
	error = ask(b, &request, NULL, 0);
	printf("create: %s\n", error == EEXIST ? "there already" : shmuring_strerror(error));
	shmuring_prep_extend(&request, rel, 0, 0, image);
	printf("extend: %s\n", shmuring_strerror(ask(b, &request, NULL, 0)));
	shmuring_prep_get_page(&request, rel, 0, 1, 0);
	printf("read: %s\n", shmuring_strerror(ask(b, &request, page, PAGE)));
	printf("the page is %s\n", memcmp(page, image, PAGE) == 0 ? "the same" : "another");

	must(shmuring_backend_detach(b, &wait), "detach");
	must(shmuring_backend_free(b), "free");
	must(shmuring_region_detach(region), "region");
	return memcmp(page, image, PAGE) != 0;
}
