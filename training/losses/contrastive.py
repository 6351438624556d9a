"""The contrastive loss over boundary features, always in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-9  # inside the root, pixels of feature space squared
EXCLUDED = -1e30  # similarity of a key that does not take part: finite, so that a row without keys has finite gradients


def contrastive_loss(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    positives_in: Tensor,
    negatives_in: Tensor,
    *,
    literal: bool = False,
    normalize: bool = False,
    tau: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Loss of each query: -log(sum over its positives of exp(-D) / sum over positives and negatives of exp(-D)).

    D is the Euclidean distance of two features. The BEIS paper's equations 3 and 4 put the negatives into the numerator, which pulls the
    two sides of a boundary together, against its own text and against contrastive boundary learning (Tang et al. 2022), where it builds on;
    ``literal`` does as the equations say.

    Args:
        queries: (R, Q, C).
        positives: (R, P, C), keys that the R queries share.
        negatives: (R, M, C).
        positives_in: (R, Q, P) bool, the positives of each query.
        negatives_in: (R, M) bool.
        literal: negatives in the numerator.
        normalize: bring features to length 1 first.
        tau: temperature; distances are divided by it.

    Returns:
        losses: (R, Q) float32, 0 where a query has no key for its numerator.
        defined: (R, Q) bool, where it has one.
    """
    with torch.autocast(queries.device.type, enabled=False):
        q, keys = queries.float(), torch.cat([positives, negatives], 1).float()  # R, P + M, C
        if normalize:
            q, keys = F.normalize(q, dim=-1), F.normalize(keys, dim=-1)
        # Not by matrix products: they lose half of the digits where two features nearly agree.
        distance = torch.cdist(q, keys, compute_mode="donot_use_mm_for_euclid_dist")  # R, Q, P + M
        similarity = -(distance.square() + EPSILON).sqrt() / tau
        taken = torch.cat([positives_in, negatives_in[:, None].expand(-1, q.shape[1], -1)], -1)
        similarity = similarity.masked_fill(~taken, EXCLUDED)
        split = positives.shape[1]
        top, top_in = (similarity[..., split:], taken[..., split:]) if literal else (similarity[..., :split], taken[..., :split])
        defined = top_in.any(-1)
        if top.shape[-1] == 0:
            return similarity.sum(-1) * 0, defined
        losses = torch.logsumexp(similarity, -1) - torch.logsumexp(top, -1)
        return torch.where(defined, losses, 0.0), defined
