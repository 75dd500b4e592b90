"""Answers to exercise 3.1: accepted ones, and wrong ones with the hint that each must get."""

import torch


def accepted_strata(n_cells, n_genes, generator):
    share = (torch.randperm(n_cells, generator=generator) + torch.rand(n_cells, generator=generator)) / n_cells
    k = (share * n_genes).long().clamp(max=n_genes - 1) + 1
    return torch.rand(n_cells, n_genes, generator=generator).argsort(-1).argsort(-1) < k[:, None]


def accepted_loop(n_cells, n_genes, generator):
    mask = torch.zeros(n_cells, n_genes, dtype=torch.bool)
    for i, cell in enumerate(torch.randperm(n_cells, generator=generator)):
        k = min(n_genes, int((i + float(torch.rand(1, generator=generator))) / n_cells * n_genes) + 1)
        mask[cell, torch.randperm(n_genes, generator=generator)[:k]] = True
    return mask


def accepted_one_jitter(n_cells, n_genes, generator):
    start = torch.rand(1, generator=generator)  # one offset for all slices: stratified as well
    share = ((torch.arange(n_cells) + start) / n_cells)[torch.randperm(n_cells, generator=generator)]
    k = torch.floor(share * n_genes).long().clamp(max=n_genes - 1) + 1
    noise = torch.rand(n_cells, n_genes, generator=generator)
    return noise <= noise.sort(-1).values.gather(-1, (k - 1)[:, None])


def wrong_from_zero(n_cells, n_genes, generator):
    """Add 1 to k: it can be 0."""
    share = (torch.randperm(n_cells, generator=generator) + torch.rand(n_cells, generator=generator)) / n_cells
    k = (share * n_genes).long()
    return torch.rand(n_cells, n_genes, generator=generator).argsort(-1).argsort(-1) < k[:, None]


def wrong_way_round(n_cells, n_genes, generator):
    """Or your mask is the wrong way round"""
    return ~accepted_strata(n_cells, n_genes, generator)


def wrong_one_share(n_cells, n_genes, generator):
    """You drew one share for the whole batch"""
    k = torch.randint(1, n_genes + 1, (1,), generator=generator)
    return torch.rand(n_cells, n_genes, generator=generator).argsort(-1).argsort(-1) < k


def wrong_independent(n_cells, n_genes, generator):
    """Your k are not stratified"""
    k = torch.randint(1, n_genes + 1, (n_cells,), generator=generator)
    return torch.rand(n_cells, n_genes, generator=generator).argsort(-1).argsort(-1) < k[:, None]


def wrong_coin_a_gene(n_cells, n_genes, generator):
    """and hides exactly k genes"""
    share = (torch.randperm(n_cells, generator=generator) + torch.rand(n_cells, generator=generator)) / n_cells
    return torch.rand(n_cells, n_genes, generator=generator) < share[:, None]


def wrong_first_genes(n_cells, n_genes, generator):
    """You always hide the same genes of a cell"""
    share = (torch.randperm(n_cells, generator=generator) + torch.rand(n_cells, generator=generator)) / n_cells
    k = (share * n_genes).long().clamp(max=n_genes - 1) + 1
    return torch.arange(n_genes) < k[:, None]


def wrong_in_order(n_cells, n_genes, generator):
    """Your slices follow the order of the cells"""
    share = (torch.arange(n_cells) + torch.rand(n_cells, generator=generator)) / n_cells
    k = (share * n_genes).long().clamp(max=n_genes - 1) + 1
    return torch.rand(n_cells, n_genes, generator=generator).argsort(-1).argsort(-1) < k[:, None]


def wrong_global_generator(n_cells, n_genes, generator):
    """You drew from the global generator"""
    share = (torch.randperm(n_cells) + torch.rand(n_cells)) / n_cells
    k = (share * n_genes).long().clamp(max=n_genes - 1) + 1
    return torch.rand(n_cells, n_genes).argsort(-1).argsort(-1) < k[:, None]


def wrong_middle_of_slice(n_cells, n_genes, generator):
    """your k is fixed by the slice"""
    share = (torch.randperm(n_cells, generator=generator) + 0.5) / n_cells
    k = (share * n_genes).long() + 1
    return torch.rand(n_cells, n_genes, generator=generator).argsort(-1).argsort(-1) < k[:, None]


def wrong_rounded_share(n_cells, n_genes, generator):
    """k = floor(share * n_genes) + 1"""
    share = (torch.randperm(n_cells, generator=generator) + torch.rand(n_cells, generator=generator)) / n_cells
    k = share.long() * n_genes + 1
    return torch.rand(n_cells, n_genes, generator=generator).argsort(-1).argsort(-1) < k[:, None]


def wrong_run(n_cells, n_genes, generator):
    """You hide a run of neighbours"""
    places = torch.randperm(n_cells, generator=generator) + torch.rand(n_cells, generator=generator)
    k = (places / n_cells * n_genes).long().clamp(max=n_genes - 1) + 1
    begin = torch.randint(n_genes, (n_cells, 1), generator=generator)
    return (torch.arange(n_genes) + begin) % n_genes < k[:, None]


def wrong_shifted(n_cells, n_genes, generator):
    """one mask shifted from cell to cell"""
    places = torch.randperm(n_cells, generator=generator) + torch.rand(n_cells, generator=generator)
    k = (places / n_cells * n_genes).long().clamp(max=n_genes - 1) + 1
    turn = torch.randperm(n_genes, generator=generator)
    return turn[(torch.arange(n_genes) + torch.arange(n_cells)[:, None]) % n_genes] < k[:, None]


def wrong_dealt(n_cells, n_genes, generator):
    """You deal the genes of one shuffled deck"""
    places = torch.randperm(n_cells, generator=generator) + torch.rand(n_cells, generator=generator)
    k = (places / n_cells * n_genes).long().clamp(max=n_genes - 1) + 1
    mask, deck = torch.zeros(n_cells, n_genes, dtype=torch.bool), []
    for cell, n in enumerate(k.tolist()):
        if len(deck) < n:
            rest = [g for g in torch.randperm(n_genes, generator=generator).tolist() if g not in deck]
            deck = deck + rest
        mask[cell, deck[:n]] = True
        deck = deck[n:]
    return mask
