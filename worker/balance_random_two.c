/* SPDX-License-Identifier: Apache-2.0
 *
 * balance_random_two.c - of two drawn at random by weight, the one with less in flight for it. Of
 * two that are idle the first, or the heavier one would get all while there is little to do.
 */
#include "worker/balance.h"

#define DRAWS 16 /* to find a usable one by chance; then by looking */

static struct conf_backend *
draw(const struct conf_pool *pool, const struct balance_view *view,
     const struct conf_backend *other)
{
    for (unsigned i = 0; i < DRAWS; i++) {
        uint64_t r = view->random(view->arg) % pool->schedule_len;
        struct conf_backend *b = pool->backends[pool->schedule[r]];
        if (b != other && view->is_usable(b, view->arg)) {
            return b;
        }
    }
    uint64_t from = view->random(view->arg) % pool->nbackends;
    for (unsigned i = 0; i < pool->nbackends; i++) {
        struct conf_backend *b = pool->backends[(from + i) % pool->nbackends];
        if (b != other && view->is_usable(b, view->arg)) {
            return b;
        }
    }
    return NULL;
}

static struct conf_backend *
random_two_pick(const struct conf_pool *pool, const struct balance_view *view)
{
    struct conf_backend *one = draw(pool, view, NULL);
    struct conf_backend *two = one ? draw(pool, view, one) : NULL;
    if (!two) {
        return one;
    }
    uint64_t of_one = view->active(one, view->arg);
    uint64_t of_two = view->active(two, view->arg);
    if (of_one == 0 && of_two == 0) {
        return view->takes_turn(one, view->arg) ? one : two;
    }
    uint64_t one_load = (of_one + 1) * view->weight(two, view->arg);
    uint64_t two_load = (of_two + 1) * view->weight(one, view->arg);
    return two_load < one_load ? two : one;
}

const struct balance_ops balance_random_two = {.pick = random_two_pick};
