"""Classes of images by the votes of their nearest neighbours: what features are worth without training anything.

In: features of images whose classes are asked, and of a bank whose classes are known. Out: int64 classes. A neighbour
votes exp(cosine / temperature): Wu et al. 2018 (arXiv 1805.01978, section 3.4), temperature 0.07, and DINO (Caron et
al. 2021, arXiv 2104.14294, section 4.1), 20 neighbours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

QUERIES_AT_ONCE = 256


def knn_classes(
    queries: Tensor, bank: Tensor, bank_labels: Tensor, num_classes: int, neighbours: int, temperature: float
) -> Tensor:
    """Return the class with the most votes for each query, the first of equals: int64[n].

    ``queries``: float[n, d] and ``bank``: float[m, d] of any length. ``bank_labels``: int64[m] in 0..num_classes-1.
    Memory is that of 256 queries times the bank, whatever n; queries are independent of each other.

    Raises:
        ValueError: more neighbours than the bank has.
    """
    if neighbours > len(bank):
        raise ValueError(f"{neighbours} neighbours of {len(bank)}")
    bank = F.normalize(bank.float(), dim=1).T.contiguous()
    parts = []
    for part in F.normalize(queries.float(), dim=1).split(QUERIES_AT_ONCE):
        cosines, nearest = (part @ bank).topk(neighbours, dim=1)
        # Relative to the nearest: no vote overflows at a low temperature, and shares stay as they are.
        votes = ((cosines - cosines[:, :1]) / temperature).exp()
        totals = votes.new_zeros(len(part), num_classes)
        rows = torch.arange(len(part), device=part.device)
        for number in range(neighbours):  # one after the other: a scattered sum has no fixed order on a GPU
            totals[rows, bank_labels[nearest[:, number]]] += votes[:, number]
        parts.append(totals.argmax(1))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=queries.device)
