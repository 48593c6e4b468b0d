/* Description: the quick start of the README: reads a block of a region that is served. `quickstart REGION` */
#include <shmuring.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	struct shmuring_wait wait = {shmuring_deadline_ms(10000), NULL, 0};
	struct shmuring_rel rel = shmuring_rel_of(1663, 5, 16384, 0);
	struct shmuring_completion done;
	struct shmuring_leftover left;
	struct shmuring_region *region;
	struct shmuring_backend *b;
	struct shmuring_error err;
	const void *page;
	shmuring_ref ref;

	if (argc != 2)
		return 2;
	if (shmuring_region_attach(argv[1], &region, &err) < 0 ||
	    shmuring_backend_attach(region, 0, 8, &b, &err) < 0) { /* slots 0 to 7 are ours */
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	while (shmuring_next_leftover(b, &wait, &left) == 1)
		printf("an earlier owner left slot %u\n", left.slot);

	ref = shmuring_start_get_page(b, rel, 7, 0); /* below 0: an error, which every call takes for what it is */
	if (shmuring_wait(b, ref, &wait) < 0 || shmuring_result(b, ref, &done) < 0)
		return 1;
	if (done.error != 0)
		printf("block 7: %s\n", shmuring_strerror(done.error));
	else if (shmuring_page(b, ref, 0, &page) == 0)
		printf("block 7 begins with %02x\n", *(const unsigned char *)page);
	shmuring_finish(b, ref, &done);

	shmuring_backend_detach(b, &wait);
	shmuring_backend_free(b);
	return shmuring_region_detach(region);
}
