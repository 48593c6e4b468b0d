/*
 * Description: a panic in the library becomes SHMURING_ERR_BUG and a handle that does nothing any more; the process,
 * the region and other handles live on. `bug REGION`; the library is built with debug assertions; nobody serves.
 */
#include "check.h"
#include "shmuring/host.h"

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

/* Whoever knows what a communicator left half done may not be told that its role is free: it ends with the process. */
static void in_a_communicator(const char *path)
{
	struct shmuring_region *region = region_at(path);
	struct shmuring_backend *b = backend_of(region, 0, 2);
	struct shmuring_communicator *c = NULL;
	struct shmuring_host_config config;
	struct shmuring_host *host = NULL;
	struct shmuring_claim claim;
	struct shmuring_error err;
	shmuring_ref ref;

	shmuring_test_panic();
	GIVES(shmuring_communicator_take_role(region, &c, &err), SHMURING_ERR_BUG);
	CHECK(c == NULL && err.code == SHMURING_ERR_BUG && strstr(err.text, "bug") != NULL);
	memset(&config, 0, sizeof(config));
	shmuring_test_panic();
	GIVES(shmuring_host_start(&config, &host, &err), SHMURING_ERR_BUG);
	CHECK(host == NULL && err.code == SHMURING_ERR_BUG && strstr(err.text, "bug") != NULL);

	GIVES(shmuring_communicator_take_role(region, &c, &err), 0);
	ref = shmuring_start_get_page(b, rel(), 1, 1);
	GIVES(shmuring_communicator_reap(c, SHMURING_STATE_COPYING, &claim, 1), 1);
	CHECK(claim.ref == ref);
	shmuring_test_panic();
	GIVES(shmuring_claim_complete(c, ref, 1, 0), SHMURING_ERR_BUG);
	GIVES(shmuring_claim_complete(c, ref, 1, 0), SHMURING_ERR_BUG);
	GIVES(shmuring_communicator_reap(c, SHMURING_STATE_COPYING, &claim, 1), SHMURING_ERR_BUG);
	GIVES(shmuring_communicator_release_role(c), SHMURING_ERR_BUG);
	GIVES(shmuring_backend_free(b), 0);
	GIVES(shmuring_region_detach(region), SHMURING_ERR_IN_USE);
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
	in_a_communicator(argv[1]);
	return 0;
}
