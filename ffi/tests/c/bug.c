/*
 * Description: a panic in the library becomes SHMURING_ERR_BUG and a handle that does nothing any more; the process,
 * the region and other handles live on. `bug REGION`; the library is built with the feature inject-panic; nobody
 * serves.
 */
#include "check.h"

#ifdef __cplusplus
extern "C"
#endif
/* The next call that is guarded panics. */
void shmuring_test_panic(void);

static struct shmuring_rel rel(void)
{
	return shmuring_rel_of(1663, 5, 16384, 0);
}

static void in_a_region(const char *path)
{
	struct shmuring_region *region = NULL;
	struct shmuring_error err;

	shmuring_test_panic();
	GIVES(shmuring_region_attach(path, &region, &err), SHMURING_ERR_BUG);
	CHECK(region == NULL && err.code == SHMURING_ERR_BUG && strstr(err.text, "bug") != NULL);
}

static void in_a_backend(struct shmuring_region *region, struct shmuring_backend *b)
{
	struct shmuring_wait wait = patience();
	shmuring_ref ref = shmuring_start_get_page(b, rel(), 1, 1);

	CHECK(ref >= 0);
	shmuring_test_panic();
	GIVES(shmuring_wait(b, ref, &wait), SHMURING_ERR_BUG);
	GIVES(shmuring_wait(b, ref, &wait), SHMURING_ERR_BUG);
	GIVES(shmuring_poll(b, ref), SHMURING_ERR_BUG);
	GIVES(shmuring_state(b, 0), SHMURING_ERR_BUG);
	GIVES(shmuring_fill_get_page(b, 1, rel(), 1, 1), SHMURING_ERR_BUG);
	GIVES(shmuring_start_get_page(b, rel(), 1, 1), SHMURING_ERR_BUG);
	GIVES(shmuring_submit(b, ref), SHMURING_ERR_BUG);
	GIVES(shmuring_cancel(b, ref, &wait), SHMURING_ERR_BUG);
	GIVES(shmuring_backend_detach(b, &wait), SHMURING_ERR_BUG);
	GIVES(shmuring_region_detach(region), SHMURING_ERR_IN_USE);
	GIVES(shmuring_backend_free(b), 0);
}

int main(int argc, char **argv)
{
	struct shmuring_wait brief = {0, NULL, 0};
	struct shmuring_backend *b, *other;
	struct shmuring_server *server;
	struct shmuring_region *region;
	struct shmuring_leftover left;

	if (argc != 2)
		return 2;
	in_a_region(argv[1]);
	region = region_at(argv[1]);
	b = backend_of(region, 0, 2);
	other = backend_of(region, 2, 2);
	in_a_backend(region, b);

	/* The next owner settles what the broken handle left, as after a death. */
	b = backend_of(region, 0, 2);
	GIVES(shmuring_next_leftover(b, &brief, &left), 1);
	CHECK(left.fate == SHMURING_FATE_WITHDRAWN && left.request.block == 1);
	GIVES(shmuring_next_leftover(b, &brief, &left), 0);
	GIVES(shmuring_backend_free(b), 0);
	CHECK(shmuring_start_get_page(other, rel(), 1, 1) >= 0);
	GIVES(shmuring_backend_detach(other, &brief), 1);
	GIVES(shmuring_backend_free(other), 0);

	CHECK(shmuring_server_begin(region, 1, &server, NULL) > 0);
	shmuring_test_panic();
	GIVES(shmuring_server_settle(server, &brief), SHMURING_ERR_BUG);
	GIVES(shmuring_server_settle(server, &brief), SHMURING_ERR_BUG);
	GIVES(shmuring_server_end(server), 0);
	GIVES(shmuring_region_detach(region), 0);
	return 0;
}
