# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_sum_of_squares_loss', tier='narrow', verdict='WARN', culprit_op=['reduce_mean', 'reduce_sum', 'mul', 'pow', 'square', 'reduce_sum_square'],
 expect='a sum of squared pixel differences, which a pass makes a mean: only its inside may overflow')
class M(nn.Module):
    def forward(self, a, b): return ((a - b) ** 2).sum((1, 2, 3)) / a.numel()
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(1, 3, 32, 32) * 255, torch.rand(1, 3, 32, 32) * 255)
