/* SPDX-License-Identifier: Apache-2.0
 *
 * list.h - a circular doubly linked list whose links lie inside the members.
 *
 * A head is a link that is its own neighbour when empty. A member that is in no list has links
 * that point at itself (list_init), so that list_del is always allowed on an initialised link.
 */
#ifndef SHARED_LIST_H
#define SHARED_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next;
    struct list *prev;
};

#define LIST_INIT(name) \
    { \
        &(name), &(name) \
    }

#define container_of(member_ptr, type, member) \
    ((type *)((char *)(member_ptr)-offsetof(type, member)))

static inline void
list_init(struct list *l)
{
    l->next = l;
    l->prev = l;
}

static inline bool
list_is_empty(const struct list *l)
{
    return l->next == l;
}

static inline void
list_insert_between(struct list *l, struct list *prev, struct list *next)
{
    l->prev = prev;
    l->next = next;
    prev->next = l;
    next->prev = l;
}

static inline void
list_add_head(struct list *head, struct list *l)
{
    list_insert_between(l, head, head->next);
}

static inline void
list_add_tail(struct list *head, struct list *l)
{
    list_insert_between(l, head->prev, head);
}

static inline void
list_del(struct list *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    list_init(l);
}

/* Move every member of from behind the members of to; from is empty afterwards. */
static inline void
list_splice_tail(struct list *to, struct list *from)
{
    if (list_is_empty(from)) {
        return;
    }
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define list_first(head, type, member) container_of((head)->next, type, member)
#define list_last(head, type, member)  container_of((head)->prev, type, member)

#define list_for_each(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)

/* The current member may be removed while walking. */
#define list_for_each_safe(it, head) \
    for (struct list *it = (head)->next, *it##_next = it->next; it != (head); \
         it = it##_next, it##_next = it->next)

#endif
