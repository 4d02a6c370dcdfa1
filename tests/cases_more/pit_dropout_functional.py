# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_dropout_functional', verdict='WARN', culprit_op='dropout',
 source_url='https://github.com/apple/coremltools/pull/2732',
 expect='drawn in evaluation mode too: the source never answers twice the same; coremltools leaves it out')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.f = nn.Linear(8, 8)
    def forward(self, x): return F.dropout(self.f(x), 0.5, training=True)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 8),)
