import pytest
import torch
from torch import nn

from m2ib_export.blocks import Attention, Block, Mlp, PooledAttention, PooledBlock, Projections

WIDTH, HEADS, TOKENS = 24, 3, 7


@pytest.fixture
def parts():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        projections = [nn.Linear(WIDTH, WIDTH) for _ in range(4)]
        norms = [nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)]
        for norm in norms:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
        mlp = Mlp(up=nn.Linear(WIDTH, 50), down=nn.Linear(50, WIDTH), activation=torch.tanh)
    query, key, value, output = projections
    return Projections(query=query, key=key, value=value, output=output, heads=HEADS), norms, mlp


@torch.no_grad()
def test_attention_is_torchs_own(parts):
    projections, _, _ = parts
    reference = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    stacked = [projections.query, projections.key, projections.value]
    reference.in_proj_weight.copy_(torch.cat([part.weight for part in stacked]))
    reference.in_proj_bias.copy_(torch.cat([part.bias for part in stacked]))
    reference.out_proj.load_state_dict(projections.output.state_dict())
    hidden = torch.randn(2, TOKENS, WIDTH)
    expected, _ = reference(hidden, hidden, hidden, need_weights=False)
    torch.testing.assert_close(Attention(projections)(hidden, None), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("is_hiding", [False, True])
def test_a_pooled_block_is_the_whole_block_at_the_selected_token(parts, is_hiding):
    projections, (attention_norm, mlp_norm), mlp = parts
    whole = Block(attention=Attention(projections), attention_norm=attention_norm, mlp=mlp, mlp_norm=mlp_norm)
    pooled = PooledBlock(
        attention=PooledAttention(projections), attention_norm=attention_norm, mlp=mlp, mlp_norm=mlp_norm
    )
    hidden = torch.randn(2, TOKENS, WIDTH)
    positions = torch.tensor([0, 4])
    selector = nn.functional.one_hot(positions, TOKENS).float()
    bias = -1e9 * (torch.rand(2, 1, TOKENS) < 0.4).float() if is_hiding else None
    expected = whole(hidden, None if bias is None else bias.unsqueeze(1))[torch.arange(2), positions]
    torch.testing.assert_close(pooled(hidden, selector, bias), expected, rtol=1e-4, atol=1e-5)
