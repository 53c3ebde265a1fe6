/* SPDX-FileCopyrightText: 2026 The MoRI authors */
/* SPDX-License-Identifier: MIT */
/*
 * Fake uverbs "kernel". The provider libraries are linked with
 * -Wl,--wrap=open,stat,ioctl,mmap,write,nl_socket_alloc so that they run
 * unmodified without a NIC or a kernel driver:
 *   - open(/dev/infiniband/...) gives a descriptor on /dev/null;
 *   - ioctl() on it fails with ENOTTY, which selects the write() interface;
 *   - write() is decoded here, one case per verbs command;
 *   - mmap() of it gives anonymous pages: the doorbell registers.
 */
#define _GNU_SOURCE
#include "fake_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rdma/bnxt_re-abi.h>
#include <rdma/ib_user_verbs.h>
#if __has_include(<rdma/ionic-abi.h>)
#include <rdma/ionic-abi.h>
#define FK_IONIC
#endif
#include <rdma/mlx5-abi.h>

#define DEV_PREFIX "/dev/infiniband/"
#define PTR(x) ((uint8_t *)(uintptr_t)(x))

struct fk_config fk_cfg;
struct fk_queues fk;
struct fk_page fk_pages[FK_MAX_PAGES];
int fk_npages;

static unsigned char is_fake[4096]; /* descriptors that are ours */
static uint32_t next_handle = 1, made_qps, made_cqs;

int __real_open(const char *path, int flags, ...);
int __real_stat(const char *path, struct stat *st);
int __real_ioctl(int fd, unsigned long req, ...);
void *__real_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
ssize_t __real_write(int fd, const void *buf, size_t len);
int __wrap_open(const char *path, int flags, ...);
int __wrap_stat(const char *path, struct stat *st);
int __wrap_ioctl(int fd, unsigned long req, ...);
void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
ssize_t __wrap_write(int fd, const void *buf, size_t len);
void *__wrap_nl_socket_alloc(void);

int __wrap_open(const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = va_arg(ap, int);
	va_end(ap);
	if (strncmp(path, DEV_PREFIX, strlen(DEV_PREFIX)))
		return __real_open(path, flags, mode);
	mode = __real_open("/dev/null", O_RDWR);
	if (mode >= 0 && mode < (int)sizeof(is_fake))
		is_fake[mode] = 1;
	return mode;
}

static int ours(int fd)
{
	return fd >= 0 && fd < (int)sizeof(is_fake) && is_fake[fd];
}

void fk_closed(int fd)
{
	if (ours(fd))
		is_fake[fd] = 0;
}

int __wrap_stat(const char *path, struct stat *st)
{
	/* /dev/null is 1:3, which is what the fake sysfs "dev" file says */
	if (!strncmp(path, DEV_PREFIX, strlen(DEV_PREFIX)))
		path = "/dev/null";
	return __real_stat(path, st);
}

int __wrap_ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (!ours(fd))
		return __real_ioctl(fd, req, arg);
	errno = ENOTTY;
	return -1;
}

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	uint8_t *m;

	if (!ours(fd))
		return __real_mmap(addr, len, prot, flags, fd, off);
	m = __real_mmap(addr, len, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | (flags & MAP_FIXED), -1, 0);
	if (fk_cfg.verbose)
		fprintf(stderr, "fk: mmap off=%#lx len=%#zx\n", (long)off, len);
	/* bnxt_re maps a shared (non-doorbell) page at offset 0 */
	if (m == MAP_FAILED || (fk_cfg.provider == P_BNXT && !off))
		return m;
	if (fk_npages < FK_MAX_PAGES) {
		memset(m, FK_PAGE_FILL, len);
		fk_pages[fk_npages++] = (struct fk_page){ .mem = m, .len = len };
	}
	return m;
}

void *__wrap_nl_socket_alloc(void)
{
	return NULL; /* devices are then enumerated from sysfs */
}

static uint32_t pow2_at_least(uint32_t n)
{
	uint32_t p = 1;

	while (p < n)
		p <<= 1;
	return p;
}

static void get_context(const struct ib_uverbs_get_context *req, int fd, size_t out)
{
	struct ib_uverbs_get_context_resp *resp = (void *)PTR(req->response);
	void *drv = resp + 1;

	memset(resp, 0, out);
	resp->async_fd = dup(fd);
	resp->num_comp_vectors = 1;
	if (fk_cfg.provider == P_MLX5) {
		const struct mlx5_ib_alloc_ucontext_req_v2 *in = (const void *)(req + 1);
		struct mlx5_ib_alloc_ucontext_resp *r = drv;

		r->qp_tab_size = 1 << 18;
		r->bf_reg_size = 512;
		r->tot_bfregs = in->total_num_bfregs;
		r->cache_line_size = 64;
		r->max_sq_desc_sz = 1024;
		r->max_rq_desc_sz = 512;
		r->max_send_wqebb = 32768;
		r->max_recv_wr = 32768;
		r->max_srq_recv_wr = 32767;
		r->num_ports = 1;
		r->response_length = sizeof(*r);
		r->cqe_version = 1;
		r->log_uar_size = 12;
		r->num_uars_per_page = 1;
	} else if (fk_cfg.provider == P_BNXT) {
		struct bnxt_re_uctx_resp *r = drv;

		r->dev_id = 1;
		r->max_qp = 65536;
		r->pg_size = 4096;
		r->cqe_sz = 32;
		r->max_cqd = 65536;
		r->chip_id0 = 0x1760; /* BCM57608 */
		r->comp_mask = BNXT_RE_UCNTX_CMASK_HAVE_CCTX;
#ifdef BNXT_HAS_SLOTS
		r->comp_mask |= BNXT_RE_UCNTX_CMASK_HAVE_MODE |
				BNXT_RE_UCNTX_CMASK_MSN_TABLE_ENABLED;
		r->mode = fk_cfg.bnxt_static ? BNXT_QPLIB_WQE_MODE_STATIC :
					       BNXT_QPLIB_WQE_MODE_VARIABLE;
#endif
	}
#ifdef FK_IONIC
	else {
		struct ionic_ctx_resp *r = drv;

		r->page_shift = 12;
		r->dbell_offset = 0x1000;
		r->version = fk_cfg.ionic_v1 ? 1 : 2;
		r->qp_opcodes = 16;
		r->sq_qtype = 5;
		r->rq_qtype = 6;
		r->cq_qtype = 7;
		r->admin_qtype = 8;
		r->max_stride = 9;
		r->udma_count = 1;
	}
#endif
}

static void query_device(const struct ib_uverbs_query_device *req)
{
	struct ib_uverbs_query_device_resp *r = (void *)PTR(req->response);

	memset(r, 0, sizeof(*r));
	r->max_qp = r->max_cq = r->max_mr = 65536;
	r->max_qp_wr = 32768;
	r->max_sge = 13;
	r->max_cqe = 65535;
	r->max_pd = 1024;
	r->max_mr_size = ~0ull;
	r->page_size_cap = ~0xfffull;
	r->atomic_cap = !fk_cfg.no_atomics;
	r->max_qp_rd_atom = r->max_qp_init_rd_atom = 16;
	r->phys_port_cnt = 1;
	r->vendor_id = fk_cfg.vendor ? fk_cfg.vendor : 0x15b3;
}

static void query_port(const struct ib_uverbs_query_port *req)
{
	struct ib_uverbs_query_port_resp *r = (void *)PTR(req->response);

	memset(r, 0, sizeof(*r));
	r->state = fk_cfg.port_down ? 1 : 4; /* down, active */
	r->max_mtu = r->active_mtu = 5;
	r->gid_tbl_len = r->pkey_tbl_len = 1;
	r->link_layer = 2; /* Ethernet */
	r->max_msg_sz = 1u << 31;
}

static void alloc_pd(const struct ib_uverbs_alloc_pd *req, size_t out)
{
	struct ib_uverbs_alloc_pd_resp *r = (void *)PTR(req->response);

	memset(r, 0, out);
	r->pd_handle = next_handle++;
	if (fk_cfg.provider == P_MLX5) {
		((struct mlx5_ib_alloc_pd_resp *)(r + 1))->pdn = 0x11;
	} else if (fk_cfg.provider == P_BNXT) {
		struct bnxt_re_pd_resp *b = (void *)(r + 1);

		b->pdid = 1;
		b->dpi = 7;
		b->dbr = 0x10000;
	}
}

static void create_cq(const struct ib_uverbs_create_cq *req, size_t out)
{
	struct ib_uverbs_create_cq_resp *r = (void *)PTR(req->response);
	const void *in = req + 1;

	memset(r, 0, out);
	r->cq_handle = next_handle++;
	r->cqe = req->cqe;
	if (fk_cfg.provider == P_MLX5) {
		const struct mlx5_ib_create_cq *q = in;

		fk.cq = PTR(q->buf_addr);
		fk.cq_db = PTR(q->db_addr);
		fk.cq_count = req->cqe + 1;
		((struct mlx5_ib_create_cq_resp *)(r + 1))->cqn = 0x42 + made_cqs++;
	} else if (fk_cfg.provider == P_BNXT) {
		const struct bnxt_re_cq_req *q = in;
		struct bnxt_re_cq_resp *b = (void *)(r + 1);

		fk.cq = PTR(q->cq_va);
		fk.cq_count = pow2_at_least(req->cqe + 1);
		b->cqid = 0x33 + made_cqs++;
		b->phase = 1;
	}
#ifdef FK_IONIC
	else {
		const struct ionic_cq_req *q = in;
		struct ionic_cq_resp *b = (void *)(r + 1);

		fk.cq = PTR(q->cq[0].addr);
		fk.cq_count = 1u << q->cq[0].depth_log2;
		b->cqid[0] = 0x55 + made_cqs++;
		b->udma_mask = 1;
	}
#endif
}

static void create_qp(const struct ib_uverbs_create_qp *req, size_t out)
{
	struct ib_uverbs_create_qp_resp *r = (void *)PTR(req->response);
	const void *in = req + 1;

	memset(r, 0, out);
	r->qp_handle = next_handle++;
	r->qpn = fk_cfg.qpn + made_qps++;
	r->max_send_wr = req->max_send_wr;
	r->max_recv_wr = req->max_recv_wr;
	r->max_send_sge = req->max_send_sge;
	r->max_recv_sge = req->max_recv_sge;
	r->max_inline_data = req->max_inline_data;
	if (fk_cfg.verbose)
		fprintf(stderr, "fk: create_qp all_signalled=%u\n", req->sq_sig_all);
	if (fk_cfg.provider == P_MLX5) {
		const struct mlx5_ib_create_qp *q = in;

		fk.rq = PTR(q->buf_addr);
		fk.rq_count = q->rq_wqe_count;
		fk.rq_stride = 1u << q->rq_wqe_shift;
		fk.sq = fk.rq + ((size_t)q->rq_wqe_count << q->rq_wqe_shift);
		fk.sq_count = q->sq_wqe_count;
		fk.sq_stride = 64;
		fk.qp_db = PTR(q->db_addr);
		((struct mlx5_ib_create_qp_resp *)(r + 1))->bfreg_index = 2;
	} else if (fk_cfg.provider == P_BNXT) {
		const struct bnxt_re_qp_req *q = in;

		fk.sq = PTR(q->qpsva);
		fk.rq = PTR(q->qprva);
		fk.sq_stride = fk.rq_stride = 16;
		fk.bnxt_qp_handle = q->qp_handle;
#ifdef BNXT_HAS_SLOTS
		fk.bnxt_slots = q->sq_slots;
		fk.sq_count = q->sq_slots;
#endif
		((struct bnxt_re_qp_resp *)(r + 1))->qpid = r->qpn;
	}
#ifdef FK_IONIC
	else {
		const struct ionic_qp_req *q = in;

		fk.sq = PTR(q->sq.addr);
		fk.sq_count = 1u << q->sq.depth_log2;
		fk.sq_stride = 1u << q->sq.stride_log2;
		fk.rq = PTR(q->rq.addr);
		fk.rq_count = 1u << q->rq.depth_log2;
		fk.rq_stride = 1u << q->rq.stride_log2;
		((struct ionic_qp_resp *)(r + 1))->qpid = r->qpn;
	}
#endif
}

static void print_modify(const struct ib_uverbs_modify_qp *m)
{
	fprintf(stderr, "fk: modify state=%u mtu=%u dest=%#x hop=%u tclass=%u sgid=%u "
		"access=%u timeout=%u retry=%u rnr=%u reads=%u serves=%u\n",
		m->qp_state, m->path_mtu, m->dest_qp_num, m->dest.hop_limit,
		m->dest.traffic_class, m->dest.sgid_index, m->qp_access_flags, m->timeout,
		m->retry_cnt, m->rnr_retry, m->max_rd_atomic, m->max_dest_rd_atomic);
}

static void reg_mr(const struct ib_uverbs_reg_mr *req, size_t out)
{
	struct ib_uverbs_reg_mr_resp *r = (void *)PTR(req->response);

	memset(r, 0, out);
	r->mr_handle = next_handle++;
	r->lkey = r->rkey = 0x1000 + r->mr_handle;
}

ssize_t __wrap_write(int fd, const void *buf, size_t len)
{
	const struct ib_uverbs_cmd_hdr *hdr = buf;
	const void *body = hdr + 1;
	size_t out;

	if (!ours(fd))
		return __real_write(fd, buf, len);
	out = hdr->out_words * 4u;
	if (fk_cfg.verbose)
		fprintf(stderr, "fk: command %#x in=%u out=%zu\n", hdr->command,
			hdr->in_words * 4u, out);
	if ((hdr->command & 0xff) == fk_cfg.refuse && fk_cfg.refuse) {
		errno = EINVAL;
		return -1;
	}
	if (hdr->command & 0x80000000u) { /* extended commands */
		if ((hdr->command & 0xff) == IB_USER_VERBS_CMD_MODIFY_QP)
			return len;
		errno = ENOSYS;
		return -1;
	}
	switch (hdr->command) {
	case IB_USER_VERBS_CMD_GET_CONTEXT:
		get_context(body, fd, out);
		return len;
	case IB_USER_VERBS_CMD_QUERY_DEVICE:
		query_device(body);
		return len;
	case IB_USER_VERBS_CMD_QUERY_PORT:
		query_port(body);
		return len;
	case IB_USER_VERBS_CMD_ALLOC_PD:
		alloc_pd(body, out);
		return len;
	case IB_USER_VERBS_CMD_CREATE_CQ:
		create_cq(body, out);
		return len;
	case IB_USER_VERBS_CMD_CREATE_QP:
		create_qp(body, out);
		return len;
	case IB_USER_VERBS_CMD_MODIFY_QP:
		if (fk_cfg.verbose)
			print_modify(body);
		return len;
	case IB_USER_VERBS_CMD_REG_MR:
		reg_mr(body, out);
		return len;
	case IB_USER_VERBS_CMD_DESTROY_CQ:
	case IB_USER_VERBS_CMD_DESTROY_QP:
		/* the response, whose address comes first, counts events: none */
		memset(PTR(*(const uint64_t *)body), 0, out);
		return len;
	case IB_USER_VERBS_CMD_DEREG_MR:
	case IB_USER_VERBS_CMD_DEALLOC_PD:
		return len;
	default:
		fprintf(stderr, "fake_kernel: unhandled command %u\n", hdr->command);
		errno = ENOSYS;
		return -1;
	}
}
