/* SPDX-FileCopyrightText: 2026 The MoRI authors */
/* SPDX-License-Identifier: MIT */
/*
 * The fake kernel under installed shared libraries: LD_PRELOAD this with
 * FAKE_SYSFS naming a tree. FAKE_REFUSE, FAKE_VENDOR, FAKE_NO_ATOMICS and
 * FAKE_PORT_DOWN set fk_cfg.
 */
#define _GNU_SOURCE
#include "fake_kernel.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>

int __wrap_open(const char *path, int flags, ...);
int __wrap_stat(const char *path, struct stat *st);
int __wrap_ioctl(int fd, unsigned long req, ...);
void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
ssize_t __wrap_write(int fd, const void *buf, size_t len);

#define REAL(result, name, ...) \
	((result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

int __real_open(const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = va_arg(ap, int);
	va_end(ap);
	return REAL(int, "open", const char *, int, ...)(path, flags, mode);
}

int __real_stat(const char *path, struct stat *st)
{
	return REAL(int, "stat", const char *, struct stat *)(path, st);
}

int __real_ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	return REAL(int, "ioctl", int, unsigned long, ...)(fd, req, arg);
}

void *__real_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return REAL(void *, "mmap", void *, size_t, int, int, int, off_t)(addr, len, prot, flags, fd, off);
}

ssize_t __real_write(int fd, const void *buf, size_t len)
{
	return REAL(ssize_t, "write", int, const void *, size_t)(fd, buf, len);
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = va_arg(ap, int);
	va_end(ap);
	return __wrap_open(path, flags, mode);
}

int stat(const char *path, struct stat *st)
{
	return __wrap_stat(path, st);
}

int ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	return __wrap_ioctl(fd, req, arg);
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return __wrap_mmap(addr, len, prot, flags, fd, off);
}

ssize_t write(int fd, const void *buf, size_t len)
{
	return __wrap_write(fd, buf, len);
}

void *nl_socket_alloc(void)
{
	return NULL; /* devices are then enumerated from sysfs */
}

int close(int fd)
{
	fk_closed(fd);
	return REAL(int, "close", int)(fd);
}

static uint32_t number(const char *name)
{
	const char *text = getenv(name);

	return text ? (uint32_t)strtoul(text, NULL, 0) : 0;
}

__attribute__((constructor)) static void configure(void)
{
	fk_cfg.provider = P_MLX5;
	fk_cfg.qpn = 0x55;
	fk_cfg.verbose = number("FAKE_VERBOSE") != 0;
	fk_cfg.refuse = number("FAKE_REFUSE");
	fk_cfg.vendor = number("FAKE_VENDOR");
	fk_cfg.no_atomics = number("FAKE_NO_ATOMICS") != 0;
	fk_cfg.port_down = number("FAKE_PORT_DOWN") != 0;
}
