/* SPDX-FileCopyrightText: 2026 The MoRI authors */
/* SPDX-License-Identifier: MIT */
/* In-process stand-in for the kernel half of libibverbs: see fake_kernel.c. */
#ifndef FAKE_KERNEL_H
#define FAKE_KERNEL_H

#include <stddef.h>
#include <stdint.h>

enum provider { P_MLX5, P_BNXT, P_IONIC };

struct fk_config {
	enum provider provider;
	uint32_t qpn;      /* number given to the queue pair */
	int bnxt_static;   /* bnxt_re: static 128-byte WQEs instead of slots */
	int ionic_v1;      /* ionic: version 1 opcodes */
	int verbose;       /* trace of commands on stderr */
	uint32_t refuse;   /* number of a verbs command that fails with EINVAL */
	uint32_t vendor;   /* PCI vendor; 0: 0x15b3 */
	int no_atomics, port_down;
};

/* What the provider told the "kernel" about its queues. */
struct fk_queues {
	uint8_t *sq, *rq, *cq;
	uint32_t sq_count, rq_count, cq_count; /* units: WQEBB, slot or WQE */
	uint32_t sq_stride, rq_stride;         /* bytes per unit */
	uint8_t *qp_db, *cq_db;                /* mlx5 doorbell records */
	uint64_t bnxt_qp_handle;
	uint32_t bnxt_slots;                   /* 0: provider gives no count */
};

/* A descriptor was closed. */
void fk_closed(int fd);

#define FK_MAX_PAGES 64
struct fk_page {
	uint8_t *mem, *seen;
	size_t len;
};

extern struct fk_config fk_cfg;
extern struct fk_queues fk;
extern struct fk_page fk_pages[FK_MAX_PAGES];
extern int fk_npages;

/* Doorbell pages are filled with this byte; a run of other bytes is a write. */
#define FK_PAGE_FILL 0xa5

#endif
