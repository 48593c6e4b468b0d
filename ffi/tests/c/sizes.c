/*
 * Description: relation sizes without a request, beside a communicator of another process. `sizes change REGION` makes,
 * grows, cuts and removes a relation fork and looks after each; `sizes look REGION BLOCKS` looks at another one, which
 * the first has left with so many.
 */
#include "check.h"

#define PAGE 8192

static struct shmuring_rel rel(uint32_t number)
{
	return shmuring_rel_of(1663, 5, number, 0);
}

static uint64_t counter(const struct shmuring_region *region, int which)
{
	struct shmuring_owner_stats stats;

	GIVES(shmuring_owner_statistics(region, 0, &stats), 0);
	return stats.counters[which];
}

/* The size of the fork by a request. */
static uint64_t asked(struct shmuring_backend *b, struct shmuring_rel of)
{
	struct shmuring_wait wait = patience();
	struct shmuring_completion done;
	struct shmuring_request r;

	shmuring_prep_rel_size(&r, of, 1, 1);
	GIVES(shmuring_call(b, &r, &wait, NULL, 0, &done), 0);
	GIVES(done.error, 0);
	return done.value;
}

static void is_known(struct shmuring_backend *b, struct shmuring_rel of, uint64_t blocks, uint64_t lsn,
		     uint32_t is_changed)
{
	struct shmuring_rel_size size;

	memset(&size, 0xff, sizeof size);
	GIVES(shmuring_cached_rel_size(b, of, &size), 1);
	GIVES(size.blocks, blocks);
	GIVES(size.lsn, lsn);
	GIVES(size.is_changed, is_changed);
	GIVES(size.reserved, 0);
}

static void does(struct shmuring_backend *b, const struct shmuring_request *r)
{
	struct shmuring_wait wait = patience();
	struct shmuring_completion done;

	GIVES(shmuring_call(b, r, &wait, NULL, 0, &done), 0);
	GIVES(done.error, 0);
}

static void change(struct shmuring_region *region, struct shmuring_backend *b)
{
	static const char image[PAGE] = {1};
	const struct shmuring_rel one = rel(16384), other = rel(16385), none = rel(16386);
	struct shmuring_rel_size size;
	struct shmuring_request r;
	uint64_t submitted;

	GIVES(shmuring_cached_rel_size(b, one, &size), 0);
	shmuring_prep_create(&r, one, 100);
	does(b, &r);
	is_known(b, one, 0, 100, 1);
	shmuring_prep_extend(&r, one, 0, 110, image);
	does(b, &r);
	is_known(b, one, 1, 110, 1);
	shmuring_prep_zero_extend(&r, one, 1, 9, 120);
	does(b, &r);
	is_known(b, one, 10, 120, 1);
	GIVES(asked(b, one), 10);
	shmuring_prep_truncate(&r, one, 4, 130);
	does(b, &r);
	is_known(b, one, 4, 130, 1);
	GIVES(asked(b, one), 4);
	shmuring_prep_unlink(&r, one, 140);
	does(b, &r);
	is_known(b, one, SHMURING_MISSING, 140, 1);

	/* What nobody changed is known once it was asked for. */
	GIVES(shmuring_cached_rel_size(b, none, &size), 0);
	GIVES(asked(b, none), SHMURING_MISSING);
	GIVES(shmuring_cached_rel_size(b, none, &size), 1);
	CHECK(size.blocks == SHMURING_MISSING && size.is_changed == 0);

	shmuring_prep_create(&r, other, 100);
	does(b, &r);
	shmuring_prep_zero_extend(&r, other, 0, 7, 150);
	does(b, &r);
	submitted = counter(region, SHMURING_OWNER_SUBMITTED);
	is_known(b, other, 7, 150, 1);
	GIVES(counter(region, SHMURING_OWNER_SUBMITTED), submitted);
	GIVES(counter(region, SHMURING_OWNER_REL_SIZE_HITS), 7);
	GIVES(counter(region, SHMURING_OWNER_REL_SIZE_MISSES), 2);
}

int main(int argc, char **argv)
{
	struct shmuring_region *region;
	struct shmuring_backend *b;

	if (argc < 3)
		return 2;
	region = region_at(argv[2]);
	b = backend_of(region, 0, 4);
	if (strcmp(argv[1], "change") == 0)
		change(region, b);
	else
		is_known(b, rel(16385), strtoul(argv[3], NULL, 10), 150, 1);
	leave(b, region);
	return 0;
}
