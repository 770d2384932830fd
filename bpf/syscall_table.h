/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which system calls prove that a file belongs to the process that makes them. */
#ifndef TCPSHIFT_SYSCALL_TABLE_H
#define TCPSHIFT_SYSCALL_TABLE_H

#include "kernel.h"

/*
 * What a call that drops the last reference to a file shows about that file. A call that
 * is in neither table may refer to files of other processes, for example by a path
 * below /proc, and shows nothing.
 */
enum call_class {
	CALL_OTHER = 0,
	CALL_OWN_FILES, /* it only refers to files of its own process */
	CALL_ON_FD, /* the first argument is a descriptor */
	CALL_ON_TWO_FDS, /* the first and the third one are */
	CALL_ON_SOCKET, /* the first argument is the descriptor of a socket */
	CALL_LISTEN, /* listen(), also on a socket */
	CALL_SOCKETCALL, /* socketcall() of i386, which is many calls */
};

/* More than the highest number in the tables, and a power of two. */
#define CALL_NUMBERS 1024

/*
 * Entries that all tables have: a call that is newer than Linux 5.0 has the same number on x86 and
 * arm64. The time64 calls are of 32-bit processes only.
 */
#define COMMON_CALLS                                                                               \
	[413] = CALL_OWN_FILES, /* pselect6_time64 */                                              \
		[414] = CALL_OWN_FILES, /* ppoll_time64 */                                         \
		[417] = CALL_ON_SOCKET, /* recvmmsg_time64 */                                      \
		[426] = CALL_OWN_FILES, /* io_uring_enter */                                       \
		[436] = CALL_OWN_FILES /* close_range */

#if defined(__TARGET_ARCH_x86)

/*
 * 64-bit processes: arch/x86/entry/syscalls/syscall_64.tbl. From 512 on are calls of the
 * x32 ABI, which marks all its numbers with X32_SYSCALL_BIT.
 */
static const __u8 native_calls[CALL_NUMBERS] = {
	[0] = CALL_ON_FD, /* read */
	[1] = CALL_ON_FD, /* write */
	[3] = CALL_OWN_FILES, /* close */
	[5] = CALL_ON_FD, /* fstat */
	[7] = CALL_OWN_FILES, /* poll */
	[8] = CALL_ON_FD, /* lseek */
	[9] = CALL_OWN_FILES, /* mmap */
	[11] = CALL_OWN_FILES, /* munmap */
	[16] = CALL_ON_FD, /* ioctl */
	[17] = CALL_ON_FD, /* pread64 */
	[18] = CALL_ON_FD, /* pwrite64 */
	[19] = CALL_ON_FD, /* readv */
	[20] = CALL_ON_FD, /* writev */
	[23] = CALL_OWN_FILES, /* select */
	[25] = CALL_OWN_FILES, /* mremap */
	[32] = CALL_ON_FD, /* dup */
	[33] = CALL_OWN_FILES, /* dup2 */
	[40] = CALL_ON_FD, /* sendfile */
	[42] = CALL_ON_SOCKET, /* connect */
	[43] = CALL_ON_SOCKET, /* accept */
	[44] = CALL_ON_SOCKET, /* sendto */
	[45] = CALL_ON_SOCKET, /* recvfrom */
	[46] = CALL_ON_SOCKET, /* sendmsg */
	[47] = CALL_ON_SOCKET, /* recvmsg */
	[48] = CALL_ON_SOCKET, /* shutdown */
	[49] = CALL_ON_SOCKET, /* bind */
	[50] = CALL_LISTEN, /* listen */
	[51] = CALL_ON_SOCKET, /* getsockname */
	[52] = CALL_ON_SOCKET, /* getpeername */
	[54] = CALL_ON_SOCKET, /* setsockopt */
	[55] = CALL_ON_SOCKET, /* getsockopt */
	[59] = CALL_OWN_FILES, /* execve */
	[72] = CALL_ON_FD, /* fcntl */
	[209] = CALL_OWN_FILES, /* io_submit */
	[233] = CALL_ON_TWO_FDS, /* epoll_ctl */
	[270] = CALL_OWN_FILES, /* pselect6 */
	[271] = CALL_OWN_FILES, /* ppoll */
	[275] = CALL_ON_TWO_FDS, /* splice */
	[276] = CALL_ON_FD, /* tee */
	[288] = CALL_ON_SOCKET, /* accept4 */
	[292] = CALL_OWN_FILES, /* dup3 */
	[295] = CALL_ON_FD, /* preadv */
	[296] = CALL_ON_FD, /* pwritev */
	[299] = CALL_ON_SOCKET, /* recvmmsg */
	[307] = CALL_ON_SOCKET, /* sendmmsg */
	[322] = CALL_OWN_FILES, /* execveat */
	[327] = CALL_ON_FD, /* preadv2 */
	[328] = CALL_ON_FD, /* pwritev2 */
	COMMON_CALLS,
	[514] = CALL_ON_FD, /* ioctl */
	[515] = CALL_ON_FD, /* readv */
	[516] = CALL_ON_FD, /* writev */
	[517] = CALL_ON_SOCKET, /* recvfrom */
	[518] = CALL_ON_SOCKET, /* sendmsg */
	[519] = CALL_ON_SOCKET, /* recvmsg */
	[520] = CALL_OWN_FILES, /* execve */
	[534] = CALL_ON_FD, /* preadv */
	[535] = CALL_ON_FD, /* pwritev */
	[537] = CALL_ON_SOCKET, /* recvmmsg */
	[538] = CALL_ON_SOCKET, /* sendmmsg */
	[541] = CALL_ON_SOCKET, /* setsockopt */
	[542] = CALL_ON_SOCKET, /* getsockopt */
	[544] = CALL_OWN_FILES, /* io_submit */
	[545] = CALL_OWN_FILES, /* execveat */
	[546] = CALL_ON_FD, /* preadv2 */
	[547] = CALL_ON_FD, /* pwritev2 */
};

/* 32-bit processes, and int 0x80 of any: arch/x86/entry/syscalls/syscall_32.tbl. */
static const __u8 compat_calls[CALL_NUMBERS] = {
	[3] = CALL_ON_FD, /* read */
	[4] = CALL_ON_FD, /* write */
	[6] = CALL_OWN_FILES, /* close */
	[11] = CALL_OWN_FILES, /* execve */
	[19] = CALL_ON_FD, /* lseek */
	[41] = CALL_ON_FD, /* dup */
	[54] = CALL_ON_FD, /* ioctl */
	[55] = CALL_ON_FD, /* fcntl */
	[63] = CALL_OWN_FILES, /* dup2 */
	[82] = CALL_OWN_FILES, /* select */
	[90] = CALL_OWN_FILES, /* mmap */
	[91] = CALL_OWN_FILES, /* munmap */
	[102] = CALL_SOCKETCALL, /* socketcall */
	[108] = CALL_ON_FD, /* fstat */
	[140] = CALL_ON_FD, /* _llseek */
	[142] = CALL_OWN_FILES, /* _newselect */
	[145] = CALL_ON_FD, /* readv */
	[146] = CALL_ON_FD, /* writev */
	[163] = CALL_OWN_FILES, /* mremap */
	[168] = CALL_OWN_FILES, /* poll */
	[180] = CALL_ON_FD, /* pread64 */
	[181] = CALL_ON_FD, /* pwrite64 */
	[187] = CALL_ON_FD, /* sendfile */
	[192] = CALL_OWN_FILES, /* mmap2 */
	[197] = CALL_ON_FD, /* fstat64 */
	[221] = CALL_ON_FD, /* fcntl64 */
	[239] = CALL_ON_FD, /* sendfile64 */
	[248] = CALL_OWN_FILES, /* io_submit */
	[255] = CALL_ON_TWO_FDS, /* epoll_ctl */
	[308] = CALL_OWN_FILES, /* pselect6 */
	[309] = CALL_OWN_FILES, /* ppoll */
	[313] = CALL_ON_TWO_FDS, /* splice */
	[315] = CALL_ON_FD, /* tee */
	[330] = CALL_OWN_FILES, /* dup3 */
	[333] = CALL_ON_FD, /* preadv */
	[334] = CALL_ON_FD, /* pwritev */
	[337] = CALL_ON_SOCKET, /* recvmmsg */
	[345] = CALL_ON_SOCKET, /* sendmmsg */
	[358] = CALL_OWN_FILES, /* execveat */
	[361] = CALL_ON_SOCKET, /* bind */
	[362] = CALL_ON_SOCKET, /* connect */
	[363] = CALL_LISTEN, /* listen */
	[364] = CALL_ON_SOCKET, /* accept4 */
	[365] = CALL_ON_SOCKET, /* getsockopt */
	[366] = CALL_ON_SOCKET, /* setsockopt */
	[367] = CALL_ON_SOCKET, /* getsockname */
	[368] = CALL_ON_SOCKET, /* getpeername */
	[369] = CALL_ON_SOCKET, /* sendto */
	[370] = CALL_ON_SOCKET, /* sendmsg */
	[371] = CALL_ON_SOCKET, /* recvfrom */
	[372] = CALL_ON_SOCKET, /* recvmsg */
	[373] = CALL_ON_SOCKET, /* shutdown */
	[378] = CALL_ON_FD, /* preadv2 */
	[379] = CALL_ON_FD, /* pwritev2 */
	COMMON_CALLS,
};

#elif defined(__TARGET_ARCH_arm64)

/* 64-bit processes: include/uapi/asm-generic/unistd.h. */
static const __u8 native_calls[CALL_NUMBERS] = {
	[2] = CALL_OWN_FILES, /* io_submit */
	[21] = CALL_ON_TWO_FDS, /* epoll_ctl */
	[23] = CALL_ON_FD, /* dup */
	[24] = CALL_OWN_FILES, /* dup3 */
	[25] = CALL_ON_FD, /* fcntl */
	[29] = CALL_ON_FD, /* ioctl */
	[57] = CALL_OWN_FILES, /* close */
	[62] = CALL_ON_FD, /* lseek */
	[63] = CALL_ON_FD, /* read */
	[64] = CALL_ON_FD, /* write */
	[65] = CALL_ON_FD, /* readv */
	[66] = CALL_ON_FD, /* writev */
	[67] = CALL_ON_FD, /* pread64 */
	[68] = CALL_ON_FD, /* pwrite64 */
	[69] = CALL_ON_FD, /* preadv */
	[70] = CALL_ON_FD, /* pwritev */
	[71] = CALL_ON_FD, /* sendfile */
	[72] = CALL_OWN_FILES, /* pselect6 */
	[73] = CALL_OWN_FILES, /* ppoll */
	[76] = CALL_ON_TWO_FDS, /* splice */
	[77] = CALL_ON_FD, /* tee */
	[80] = CALL_ON_FD, /* fstat */
	[200] = CALL_ON_SOCKET, /* bind */
	[201] = CALL_LISTEN, /* listen */
	[202] = CALL_ON_SOCKET, /* accept */
	[203] = CALL_ON_SOCKET, /* connect */
	[204] = CALL_ON_SOCKET, /* getsockname */
	[205] = CALL_ON_SOCKET, /* getpeername */
	[206] = CALL_ON_SOCKET, /* sendto */
	[207] = CALL_ON_SOCKET, /* recvfrom */
	[208] = CALL_ON_SOCKET, /* setsockopt */
	[209] = CALL_ON_SOCKET, /* getsockopt */
	[210] = CALL_ON_SOCKET, /* shutdown */
	[211] = CALL_ON_SOCKET, /* sendmsg */
	[212] = CALL_ON_SOCKET, /* recvmsg */
	[215] = CALL_OWN_FILES, /* munmap */
	[216] = CALL_OWN_FILES, /* mremap */
	[221] = CALL_OWN_FILES, /* execve */
	[222] = CALL_OWN_FILES, /* mmap */
	[242] = CALL_ON_SOCKET, /* accept4 */
	[243] = CALL_ON_SOCKET, /* recvmmsg */
	[269] = CALL_ON_SOCKET, /* sendmmsg */
	[281] = CALL_OWN_FILES, /* execveat */
	[286] = CALL_ON_FD, /* preadv2 */
	[287] = CALL_ON_FD, /* pwritev2 */
	COMMON_CALLS,
};

/* 32-bit processes: arch/arm/tools/syscall.tbl. */
static const __u8 compat_calls[CALL_NUMBERS] = {
	[3] = CALL_ON_FD, /* read */
	[4] = CALL_ON_FD, /* write */
	[6] = CALL_OWN_FILES, /* close */
	[11] = CALL_OWN_FILES, /* execve */
	[19] = CALL_ON_FD, /* lseek */
	[41] = CALL_ON_FD, /* dup */
	[54] = CALL_ON_FD, /* ioctl */
	[55] = CALL_ON_FD, /* fcntl */
	[63] = CALL_OWN_FILES, /* dup2 */
	[91] = CALL_OWN_FILES, /* munmap */
	[108] = CALL_ON_FD, /* fstat */
	[140] = CALL_ON_FD, /* _llseek */
	[142] = CALL_OWN_FILES, /* _newselect */
	[145] = CALL_ON_FD, /* readv */
	[146] = CALL_ON_FD, /* writev */
	[163] = CALL_OWN_FILES, /* mremap */
	[168] = CALL_OWN_FILES, /* poll */
	[180] = CALL_ON_FD, /* pread64 */
	[181] = CALL_ON_FD, /* pwrite64 */
	[187] = CALL_ON_FD, /* sendfile */
	[192] = CALL_OWN_FILES, /* mmap2 */
	[197] = CALL_ON_FD, /* fstat64 */
	[221] = CALL_ON_FD, /* fcntl64 */
	[239] = CALL_ON_FD, /* sendfile64 */
	[246] = CALL_OWN_FILES, /* io_submit */
	[251] = CALL_ON_TWO_FDS, /* epoll_ctl */
	[282] = CALL_ON_SOCKET, /* bind */
	[283] = CALL_ON_SOCKET, /* connect */
	[284] = CALL_LISTEN, /* listen */
	[285] = CALL_ON_SOCKET, /* accept */
	[286] = CALL_ON_SOCKET, /* getsockname */
	[287] = CALL_ON_SOCKET, /* getpeername */
	[289] = CALL_ON_SOCKET, /* send */
	[290] = CALL_ON_SOCKET, /* sendto */
	[291] = CALL_ON_SOCKET, /* recv */
	[292] = CALL_ON_SOCKET, /* recvfrom */
	[293] = CALL_ON_SOCKET, /* shutdown */
	[294] = CALL_ON_SOCKET, /* setsockopt */
	[295] = CALL_ON_SOCKET, /* getsockopt */
	[296] = CALL_ON_SOCKET, /* sendmsg */
	[297] = CALL_ON_SOCKET, /* recvmsg */
	[335] = CALL_OWN_FILES, /* pselect6 */
	[336] = CALL_OWN_FILES, /* ppoll */
	[340] = CALL_ON_TWO_FDS, /* splice */
	[342] = CALL_ON_FD, /* tee */
	[358] = CALL_OWN_FILES, /* dup3 */
	[361] = CALL_ON_FD, /* preadv */
	[362] = CALL_ON_FD, /* pwritev */
	[365] = CALL_ON_SOCKET, /* recvmmsg */
	[366] = CALL_ON_SOCKET, /* accept4 */
	[374] = CALL_ON_SOCKET, /* sendmmsg */
	[387] = CALL_OWN_FILES, /* execveat */
	[392] = CALL_ON_FD, /* preadv2 */
	[393] = CALL_ON_FD, /* pwritev2 */
	COMMON_CALLS,
};

#endif

#endif
