/* What the C tests share: a check that ends the program, and a handle of the region that the test names. */
#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shmuring.h"

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

/* That `expression` gives `wanted`, which is told with what it gave. */
#define GIVES(expression, wanted) \
	do { \
		long long gave_ = (long long)(expression); \
		long long wanted_ = (long long)(wanted); \
		if (gave_ != wanted_) { \
			fprintf(stderr, "%s:%d: %s gave %lld (%s)", __FILE__, __LINE__, #expression, gave_, \
				shmuring_strerror((int)gave_)); \
			fprintf(stderr, " and not %lld (%s)\n", wanted_, shmuring_strerror((int)wanted_)); \
			exit(1); \
		} \
	} while (0)

/* A wait of 20 s, which no good machine needs. */
static inline struct shmuring_wait patience(void)
{
	struct shmuring_wait wait;

	memset(&wait, 0, sizeof wait);
	wait.until = shmuring_deadline_ms(20000);
	return wait;
}

static inline struct shmuring_region *region_at(const char *path)
{
	struct shmuring_region *region = NULL;
	struct shmuring_error err;
	int rc = shmuring_region_attach(path, &region, &err);

	if (rc != 0)
		fprintf(stderr, "%s: %s\n", path, err.text);
	CHECK(rc == 0 && region != NULL);
	return region;
}

static inline struct shmuring_backend *backend_of(struct shmuring_region *region, uint32_t first, uint32_t count)
{
	struct shmuring_backend *b = NULL;
	struct shmuring_error err;
	int rc = shmuring_backend_attach(region, first, count, &b, &err);

	if (rc < 0)
		fprintf(stderr, "slots %u and on: %s\n", first, err.text);
	CHECK(rc >= 0 && b != NULL);
	return b;
}

/* Ends both handles, with nothing in flight. */
static inline void leave(struct shmuring_backend *b, struct shmuring_region *region)
{
	struct shmuring_wait wait = patience();

	GIVES(shmuring_backend_detach(b, &wait), 0);
	GIVES(shmuring_backend_free(b), 0);
	GIVES(shmuring_region_detach(region), 0);
}

#endif /* CHECK_H */
