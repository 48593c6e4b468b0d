/* SPDX-License-Identifier: Apache-2.0 */
/*
 * communicator.c: starts the communicator beside the server, in the postmaster, by way of `shmuring watch`, which
 * starts it again when it dies (R16).
 *
 * The watcher is nobody's child that PostgreSQL would mourn: it is forked twice, so that PID 1 reaps it, in a session
 * of its own, so that no signal to the server's group meets it, and nothing of the server is open in it. It ends when
 * the pipe on its stdin does, whose other end the postmaster and its children hold: when the last of them has gone.
 */
#include "shmuring_ext.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Arguments of the program, more than anybody gives. */
#define MOST_ARGUMENTS 64

/* What the watcher's end hangs on; -1: none was started. */
static int pipe_end = -1;

/* The command line, in memory of this function until the next call. */
static char **command(void)
{
	static char *arguments[MOST_ARGUMENTS + 1];
	static char options[4096];
	char *word, *rest;
	int n = 0;

	arguments[n++] = shx_communicator_path;
	arguments[n++] = "watch";
	arguments[n++] = "--region";
	arguments[n++] = unconstify(char *, shx_region_file());
	arguments[n++] = "--service";
	arguments[n++] = shx_page_service;
	snprintf(options, sizeof(options), "%s", shx_serve_options);
	for (word = strtok_r(options, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
		if (n == MOST_ARGUMENTS)
			ereport(FATAL, (errcode(ERRCODE_CONFIG_FILE_ERROR),
					errmsg("shmuring.serve_options has too many words")));
		arguments[n++] = word;
	}
	arguments[n] = NULL;
	return arguments;
}

/* What a fresh program expects: no signal blocked, none handled or ignored. */
static void reset_signals(void)
{
	sigset_t none;
	int number;

	for (number = 1; number < NSIG; number++)
		(void)signal(number, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Tells the parent, on `said`, why there is no watcher. */
static void give_up(int said) __attribute__((__noreturn__));

static void give_up(int said)
{
	int error = errno;
	ssize_t ignored = write(said, &error, sizeof(error));

	(void)ignored;
	_exit(1);
}

/* The grandchild: becomes the program. Calls only what is safe between fork and exec. */
static void become(char **arguments, int in, int said) __attribute__((__noreturn__));

static void become(char **arguments, int in, int said)
{
	int log = open(shx_communicator_log, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY, 0600);

	if (log < 0 || dup2(in, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
		give_up(said);
	if (said != 3 && (dup2(said, 3) < 0 || fcntl(3, F_SETFD, FD_CLOEXEC) < 0))
		give_up(said);
	if (syscall(SYS_close_range, 4, ~0U, 0) < 0) {
		int fd, most = (int)Min(sysconf(_SC_OPEN_MAX), 65536);

		for (fd = 4; fd < most; fd++)
			(void)close(fd);
	}
	reset_signals();
	(void)execvp(arguments[0], arguments);
	give_up(3);
}

/* Forks twice; the errno of what failed, or 0 once the program runs. */
static int spawn(char **arguments, int in)
{
	int said[2];
	int error = 0, status;
	pid_t child;
	ssize_t n;

	if (pipe2(said, O_CLOEXEC) < 0)
		return errno;
	child = fork();
	if (child == 0) {
		(void)setsid();
		child = fork();
		if (child == 0)
			become(arguments, in, said[1]);
		if (child < 0)
			give_up(said[1]);
		_exit(0);
	}
	if (child < 0)
		error = errno;
	(void)close(said[1]);
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (child > 0) {
		int reason;

		while ((n = read(said[0], &reason, sizeof(reason))) < 0 && errno == EINTR)
			;
		if (n == (ssize_t)sizeof(reason))
			error = reason;
	}
	(void)close(said[0]);
	return error;
}

bool shx_watcher_lives(void)
{
	/* SIGPIPE is ignored in the postmaster. */
	return pipe_end >= 0 && (write(pipe_end, "", 1) == 1 || errno == EAGAIN || errno == EINTR);
}

void shx_watcher_start(void)
{
	int ends[2];
	int error;

	if (shx_page_service[0] == '\0') {
		ereport(LOG, (errmsg("no communicator is started: shmuring.page_service is not set")));
		return;
	}
	if (shx_watcher_lives())
		return;
	shx_watcher_stop();
	/* Writing asks whether it lives, and must not block. */
	if (pipe2(ends, O_CLOEXEC) < 0 || fcntl(ends[1], F_SETFL, O_NONBLOCK) < 0)
		ereport(FATAL, (errcode_for_file_access(), errmsg("could not make a pipe: %m")));
	error = spawn(command(), ends[0]);
	(void)close(ends[0]);
	pipe_end = ends[1];
	if (error != 0) {
		errno = error;
		ereport(FATAL, (errcode_for_file_access(),
				errmsg("could not start the communicator with \"%s\": %m", shx_communicator_path),
				errhint("See shmuring.communicator_path and shmuring.communicator_log.")));
	}
}

void shx_watcher_stop(void)
{
	if (pipe_end >= 0)
		(void)close(pipe_end);
	pipe_end = -1;
}
