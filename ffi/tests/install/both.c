/*
 * Description: libshmuring.so and a library that contains libshmuring.a in one process, loaded as PostgreSQL loads its
 * extensions, each with its own copy of everything: the one is the backend, the other the communicator. both EXTENSION REGION
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <shmuring.h>
#include <stdio.h>

#define CHECK(condition)                                                        \
	do {                                                                    \
		if (!(condition)) {                                             \
			fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
			return 1;                                               \
		}                                                               \
	} while (0)
#define REQUESTS 1000

static int (*serve)(const char *path, int requests);

static void *run(void *path)
{
	return serve(path, REQUESTS) == 0 ? path : NULL;
}

int main(int argc, char **argv)
{
	const struct shmuring_region_options options = { 8, 1, SHMURING_DEFAULT_BLOCK_SIZE, 0, 0, { 0 } };
	struct shmuring_wait wait = { shmuring_deadline_ms(60000), NULL, 0 };
	struct shmuring_rel rel = shmuring_rel_of(1663, 5, 16384, 0);
	struct shmuring_region *region;
	struct shmuring_backend *b;
	const char *(*version)(void);
	pthread_t thread;
	void *extension, *done;
	uint32_t i;

	CHECK(argc == 3);
	extension = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
	CHECK(extension != NULL);
	*(void **)&version = dlsym(extension, "extension_version");
	*(void **)&serve = dlsym(extension, "extension_serve");
	CHECK(version != NULL && serve != NULL);
	/* The texts are equal, and lie in two places. */
	CHECK(version() != shmuring_version());
	CHECK(shmuring_region_create(argv[2], &options, &region, NULL) == 1);
	CHECK(pthread_create(&thread, NULL, run, argv[2]) == 0);
	CHECK(shmuring_backend_attach(region, 0, 8, &b, NULL) == 8);
	for (i = 0; i < REQUESTS; i++) {
		shmuring_ref ref = shmuring_start_get_page(b, rel, i, 0);
		const void *page;

		CHECK(ref >= 0 && shmuring_wait(b, ref, &wait) == 0);
		CHECK(shmuring_page(b, ref, 0, &page) == 0 && *(const char *)page == (char)i);
		CHECK(shmuring_finish(b, ref, NULL) == 0);
	}
	CHECK(pthread_join(thread, &done) == 0 && done != NULL);
	CHECK(shmuring_backend_detach(b, &wait) == 0 && shmuring_backend_free(b) == 0);
	CHECK(shmuring_region_detach(region) == 0);
	return 0;
}
