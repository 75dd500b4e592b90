"""Answers to exercise 2.7: accepted ones, and wrong ones with the hint that each must get."""


def accepted_list(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim):
    hd, queries = dim // n_head, n_genes * n_head
    products = [
        (n_genes, dim, dim + 2 * hd), (queries, hd, n_genes), (queries, n_genes, hd), (n_genes, dim, dim),
        (n_genes, dim, dim), (n_controls, memory_dim, 2 * hd), (queries, hd, n_controls), (queries, n_controls, hd),
        (n_genes, dim, dim), (n_genes, dim, ffn_mult * dim), (n_genes, ffn_mult * dim, dim)]
    return sum(2 * m * k * n for m, k, n in products)


def accepted_formula(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim):
    hd = dim // n_head
    per_gene = 4 * dim**2 + 2 * dim * hd + 2 * dim * (n_genes + n_controls) + 2 * ffn_mult * dim**2
    return 2 * (n_genes * per_gene + n_controls * memory_dim * 2 * hd)


def wrong_multiply_add_is_one(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim):
    """That is half: a multiply-add is 2 operations"""
    return accepted_formula(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim) // 2


def wrong_no_av(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim):
    """both products count, QK^T and AV"""
    whole = accepted_formula(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim)
    return whole - 2 * n_genes * dim * (n_genes + n_controls)


def wrong_shared_saves(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim):
    """Sharing keys saves nothing here"""
    whole = accepted_formula(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim)
    mixing = 4 * n_genes * dim * (n_genes + n_controls)
    return whole - mixing + mixing // n_head


def wrong_no_controls(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim):
    """Cross-attention meets the controls"""
    return accepted_formula(n_genes, 0, dim, n_head, ffn_mult, memory_dim)


def wrong_one_mlp_product(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim):
    """The MLP is two products"""
    whole = accepted_formula(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim)
    return whole - 2 * n_genes * ffn_mult * dim**2


def wrong_no_out(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim):
    """q and out of both attentions"""
    whole = accepted_formula(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim)
    return whole - 2 * 2 * n_genes * dim**2


def wrong_keys_from_the_stream(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim):
    """made from the memory, memory_dim wide, not from D"""
    return accepted_formula(n_genes, n_controls, dim, n_head, ffn_mult, dim)


def wrong_batch(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim):
    """not a batch of 32"""
    return 32 * accepted_formula(n_genes, n_controls, dim, n_head, ffn_mult, memory_dim)
