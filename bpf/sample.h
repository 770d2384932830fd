/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The sample: the sockets whose events are emitted. User space sets sample_n only if detection,
 * metrics and the like do not need the events.
 */
#ifndef TCPSHIFT_SAMPLE_H
#define TCPSHIFT_SAMPLE_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"
#include "transition.h"

/*
 * Whether the socket with this cookie is in the sample, which has one of about sample_n sockets.
 * internal/selection uses the same hash, the last step of MurmurHash3. Cookies have a fixed step,
 * and the two ends of a connection have neighbors: hash64() would not choose these independently.
 */
static __always_inline bool is_cookie_in_sample(__u64 cookie)
{
	__u64 hash = cookie;

	if (!sample_n)
		return true;
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccd;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53;
	return (hash ^ hash >> 33) % sample_n == 0;
}

/*
 * Whether the sample leaves out the socket of the transition; counts the transition if it does. The
 * caller has set cookie and role. Listeners are in every sample.
 */
static __always_inline bool leave_out_of_sample(const struct transition *t,
						struct program_counters *counters)
{
	const struct event_ctx *ec = t->ec;

	if (!sample_n || ec->role == ROLE_LISTENER || is_cookie_in_sample(ec->cookie))
		return false;
	count(counters->unsampled);
	if (wants_end_event(t))
		count(counters->unsampled_ends);
	return true;
}

#endif
